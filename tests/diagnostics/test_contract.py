"""Every registered diagnostic says what it is, costs what it states, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import cerewrite
from cerewrite import ir
from cerewrite.diagnostics import DIAGNOSTICS, NotApplicableError, Passes
from cerewrite.diagnostics.worth import TABLE, worth_of
from cerewrite.ir.diagnosed import Diagnosis
from tests.diagnostics.nets import NETS, case

NAMES = (
    "capacity curvature gradient-confusion gradient-norm hyper-kernel kernel-drift "
    "kernel-measures local-map multiverse naswot residual-kernel synflow variance-constancy "
    "virtual-depth zico"
).split()
SLACK = 1.3


def operations(run: Callable[[], object]) -> int:
    """Operations of linear layers, convolutions and products of matrices."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def test_the_issue_s_rows_are_registered() -> None:
    assert list(DIAGNOSTICS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    one = DIAGNOSTICS[name]
    assert one.name == name and one.title and one.formula and one.source and one.caveats
    assert one.needs in ("structure", "inputs", "targets") and one.least >= 1
    assert all(text.endswith(".") for text in one.caveats)


@pytest.mark.parametrize("name", NAMES)
def test_some_net_has_it_and_it_changes_nothing(name: str) -> None:
    read = 0
    for net in NETS:
        model, _, _, material = case(net)
        before = {k: v.clone() for k, v in model.state_dict().items() if "num_batches" not in k}
        try:
            reading = DIAGNOSTICS[name].read(material)
        except NotApplicableError as error:
            assert error.message and error.advice
            continue
        read += 1
        assert not any(map(math.isnan, reading.figures.values()))
        for key, layers in reading.layers.items():
            assert key in reading.figures and layers
        assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
        assert all(p.grad is None for p in model.parameters())
    assert read


def costs(name: str, net: str) -> tuple[float, float] | None:
    """Operations taken and stated; None for a gap. The net is ten times as wide."""
    _, _, _, material = case(net, count=12, wide=10)
    one = DIAGNOSTICS[name]
    calls: list[object] = []
    hook = material.model.register_forward_hook(lambda *_: calls.append(0))
    try:
        taken = operations(lambda: one.read(material))
    except NotApplicableError:
        return None
    finally:
        hook.remove()
    forward = operations(material.run)
    both = operations(lambda: material.gradient(material.loss_of(material.run())))
    cost = one.cost(material)
    if cost == Passes():
        assert not calls  # pure numbers: the model is not run
        return 0.0, 0.0
    return taken, cost.forward * forward + cost.backward * (both - forward)


@pytest.mark.parametrize("name", NAMES)
def test_it_costs_what_is_stated(name: str) -> None:
    found = [pair for net in ("mlp", "residual_mlp", "gated", "multiverse")
             if (pair := costs(name, net)) is not None]
    assert found
    assert all(taken <= SLACK * stated for taken, stated in found)
    # Stated costs are not padded: some net takes nearly all of it.
    assert any(stated <= SLACK * taken for taken, stated in found)


def test_a_cost_that_is_stated_too_low_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    one = DIAGNOSTICS["curvature"]
    monkeypatch.setattr(type(one), "cost", lambda self, material: Passes(1, 2))
    with pytest.raises(AssertionError):
        test_it_costs_what_is_stated("curvature")


def test_the_model_stays_and_the_record_round_trips() -> None:
    model, x, y, _ = case("residual_cnn")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = cerewrite.diagnose(model, x, y, draws=2)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert model.training and all(p.grad is None for p in model.parameters())
    assert ir.loads(Diagnosis, ir.dumps(found), source="test") == found
    again = cerewrite.diagnose(model, x, y, draws=2)
    for one, two in zip(found.findings, again.findings, strict=True):
        assert one.figures == two.figures
    assert {f.diagnostic for f in found.findings} | {g.where for g in found.gaps} == set(NAMES)


def test_errors_are_over_draws() -> None:
    model, x, y, _ = case("mlp")
    found = cerewrite.diagnose(model, x, y, draws=3, only=["gradient-norm", "capacity"])
    drawn, structure = found.findings
    assert drawn.figures[0].error is not None and drawn.draws == 3
    assert structure.figures[0].error is None and structure.draws == 0
    each = [
        cerewrite.diagnose(model, x, y, draws=n, only=["gradient-norm"]).findings[0].figures[0]
        for n in (1, 2, 3)
    ]
    first, second = each[0].value, 2 * each[1].value - each[0].value
    third = 3 * each[2].value - first - second
    values = torch.tensor([first, second, third], dtype=torch.float64)
    assert float(values.std() / 3**0.5) == pytest.approx(drawn.figures[0].error, rel=1e-6)


def test_the_weights_as_they_stand() -> None:
    model, x, y, material = case("mlp")
    found = cerewrite.diagnose(model, x, y, draws=0, only=["gradient-norm"])
    own = DIAGNOSTICS["gradient-norm"].read(material)
    assert found.value("gradient-norm", "norm") == pytest.approx(own.figures["norm"], rel=1e-12)
    assert found.findings[0].figures[0].error is None


def test_worth_is_of_figures_that_exist() -> None:
    assert TABLE.exists()
    seen = {}
    for net in NETS:
        _, x, y, material = case(net)
        for name in NAMES:
            try:
                seen.setdefault(name, set()).update(DIAGNOSTICS[name].read(material).figures)
            except NotApplicableError:
                continue
    for name in NAMES:
        for row in worth_of(name):
            assert row.figure in seen[name]
            assert row.outcome in ("steps", "loss", "error")
