from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cerewrite.ir import Budget, Check, Design, Measures, Verification
from cerewrite.rewriting import rewrite
from cerewrite.runtime import doubling
from cerewrite.verifier import CHECKS, verify
from cerewrite.verifier.budget import count_flops
from tests.rewriting.builders import Case, layer, make_plan, region
from tests.rewriting.cases import CASES, parameters_of, same_state


def named(verification: Verification, name: str) -> Check:
    return next(check for check in verification.checks if check.name == name)


@pytest.mark.parametrize("large", [doubling.LARGE, 0], ids=["widened", "widened when read"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_case_passes_every_check(
    case: Case, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubling, "LARGE", large)
    model, inputs = case.model(), case.inputs()
    plan = case.plan(model)
    new = rewrite(plan, model).model
    states = [parameters_of(model), parameters_of(new)]
    modules = [list(model.modules()), list(new.modules())]
    rng, x = torch.get_rng_state(), inputs[0].clone()
    verification = verify(model, new, plan, inputs)
    assert verification.passed, verification.failures
    membership = named(verification, "membership")
    assert membership.value is not None and 0 <= membership.value < 1e-13
    assert {c.name for c in verification.checks} == {
        *("signature", "params", "flops", "budget params", "membership", "gradients", "signal")
    }
    for net, state, before in zip((model, new), states, modules, strict=True):
        assert same_state(parameters_of(net), state)
        assert list(net.modules()) == before and net.training
        assert all("forward" not in vars(m) and not m._forward_hooks for m in net.modules())
        assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng) and torch.equal(inputs[0], x)
    assert torch.get_default_dtype() == torch.float32


@settings(max_examples=10)
@given(
    m=st.integers(1, 5),
    widths=st.tuples(*[st.integers(2, 5)] * 3),
    seed=st.integers(0, 100),
)
def test_membership_holds_for_any_split(m: int, widths: tuple[int, ...], seed: int) -> None:
    case = replace(CASES["cnn"], splits=((m, widths),))
    model = case.model(seed)
    plan = case.plan(model, seed)
    check = CHECKS["membership"](model, rewrite(plan, model).model, plan, case.inputs())[0]
    assert check.passed, check


def test_a_layer_between_two_regions() -> None:
    for build, inner in ((lambda: nn.Linear(6, 6), 1), (lambda: nn.Conv1d(6, 6, 1), 1)):
        model = nn.Sequential(*(build() for _ in range(6)))
        x = torch.randn(3, 6) if isinstance(model[0], nn.Linear) else torch.randn(3, 6, 2)
        found = tuple(
            region(
                model,
                [layer(model, str(i + k), k - 1, k if k < 2 else -1, inner) for k in range(3)],
            )
            for i in (0, 2)
        )
        plan = make_plan(model, (x,), found, ((2, (4, 3)), (3, (2, 5))))
        check = CHECKS["membership"](model, rewrite(plan, model).model, plan, (x,))[0]
        assert check.passed, check


class TwoWays(nn.Module):
    """Keyword inputs, nested outputs, in-place work on the inputs, state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
        )
        self.unused = nn.Parameter(torch.ones(3))
        self.gate = nn.Parameter(torch.zeros(1))
        self.calls = 0

    def forward(self, *, x: Tensor, mask: Tensor, label: str = "") -> dict[str, object]:
        self.calls += 1
        x *= 2
        scores = self.chain(x) * self.gate
        return {"scores": scores, "more": [scores.sum(-1), mask], "label": label}


def test_keyword_inputs_and_nested_outputs() -> None:
    torch.manual_seed(0)
    model = TwoWays()
    inputs = {"x": torch.randn(3, 4), "mask": torch.ones(3, dtype=torch.bool)}
    chain = [layer(model, f"chain.{i}", s, t) for i, s, t in ((0, -1, 0), (2, 0, 1), (4, 1, -1))]
    found = region(model, chain)
    plan = make_plan(model.chain, (inputs["x"],), (), ())
    plan = make_plan_for(model, plan, found)
    new = rewrite(plan, model).model
    x = inputs["x"].clone()
    verification = verify(model, new, plan, inputs)
    failed = {check.name for check in verification.failures}
    assert failed <= {"params", "flops", "budget params"}, verification.failures
    assert "1 unused" in named(verification, "gradients").detail
    assert torch.equal(inputs["x"], x) and model.calls == new.calls == 0


def make_plan_for(model: nn.Module, plan, found):  # noqa: ANN001, ANN201
    from cerewrite.ir import Split
    from cerewrite.runtime.fingerprint import class_name, fingerprint

    split = Split(found.name, Design(2, (3, 4)), 0, 0, Measures(0.1, 0.1, 0.1, 0.1))
    params = sum(parameter.numel() for parameter in model.parameters())
    return replace(
        plan,
        model=class_name(model),
        fingerprint=fingerprint(model),
        baseline=replace(plan.baseline, params=params),
        regions=(found,),
        splits=(split,),
    )


def test_flops_outside_modules_are_carried_over() -> None:
    case = CASES["tokens"]
    model = case.model()
    plan = case.plan(model)
    more = replace(
        plan,
        baseline=replace(plan.baseline, flops=plan.baseline.flops + 100),
        planned=replace(plan.planned, flops=plan.planned.flops + 100),
    )
    check = named(verify(model, rewrite(plan, model).model, more, case.inputs()), "flops")
    assert check.passed and "100 of them outside" in check.detail


def test_every_budget_is_held() -> None:
    case = CASES["tokens"]
    model = case.model()
    plan = case.plan(model)
    tight = (Budget("params", 100, "params=100"), Budget("flops", 1e6, "flops=1M"))
    verification = (
        verify(model, rewrite(plan, model).model, replace(plan, budgets=tight), (x,))
        if (x := case.inputs()[0]) is not None
        else None
    )
    assert verification is not None
    assert [check.name for check in verification.failures] == ["budget params=100"]
    assert named(verification, "budget flops=1M").passed


def test_flops_of_a_known_convolution() -> None:
    conv = nn.Conv2d(4, 8, 3, groups=2)
    assert count_flops(conv, (torch.zeros(5, 4, 6, 6),)) == 2 * 8 * 16 * 2 * 9


def test_meta_models() -> None:
    case = CASES["resnet"]
    plan = case.plan()
    model = case.model().to("meta")
    inputs = (case.inputs()[0].to("meta"),)
    verification = verify(model, rewrite(plan, model).model, plan, inputs)
    assert verification.passed, verification.failures
    assert "meta" in named(verification, "membership").detail


def test_batch_of_one_under_batch_norm_is_verified_in_eval_mode() -> None:
    case = replace(CASES["mlp_batch_norm"], shape=(1, 5))
    model = case.model()
    plan = case.plan(model)
    verification = verify(model, rewrite(plan, model).model, plan, case.inputs())
    assert verification.passed, verification.failures
    assert "train mode: not run" in named(verification, "signature").detail
    assert "eval mode" in named(verification, "gradients").detail


def test_a_plan_without_changes_verifies() -> None:
    case = CASES["tokens"]
    model = case.model()
    plan = replace(case.plan(model), splits=())
    plan = replace(plan, planned=plan.baseline)
    assert verify(model, rewrite(plan, model).model, plan, case.inputs()).passed
