from __future__ import annotations

import copy
import io
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cerewrite.errors import RewriteError, StalePlanError
from cerewrite.nn import BlockDiagonalLinear
from cerewrite.rewriting import is_rewritten, revert, rewrite
from tests.editing import edited
from tests.rewriting.builders import Case, make_plan, with_splits
from tests.rewriting.cases import CASES, parameters_of, same_state

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_original_is_untouched_and_revert_restores_it(case: Case) -> None:
    model = case.model()
    before, modules = parameters_of(model), dict(model.named_modules())
    state = torch.get_rng_state()
    result = rewrite(case.plan(model), model)
    assert torch.equal(state, torch.get_rng_state())
    assert same_state(parameters_of(model), before)
    assert dict(model.named_modules()) == modules and not is_rewritten(model)
    assert type(result.model) is type(model) and is_rewritten(result.model)
    assert not same_state(parameters_of(result.model), before)
    with torch.no_grad():  # whatever training does to any parameter or buffer
        for tensor in result.model.state_dict().values():
            tensor.add_(1)
    assert revert(result.model) is result.model
    assert same_state(parameters_of(result.model), before)
    assert not is_rewritten(result.model)


@each_case
def test_untouched_layers_keep_their_weights_and_renames_cover_the_rest(case: Case) -> None:
    model = case.model()
    plan = case.plan(model)
    result = rewrite(plan, model)
    swapped = {part.name for region in plan.regions for part in (*region.layers, *region.modules)}
    renamed = dict(result.renamed)
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] in swapped:
            assert result.model.get_parameter(renamed[name]).requires_grad
        else:
            assert name not in renamed
            assert torch.equal(parameter, result.model.get_parameter(name))
    assert set(renamed.values()) <= dict(result.model.named_parameters()).keys()


def test_structure_of_each_role() -> None:
    model = CASES["conv_flatten_linear"].model()
    new = rewrite(CASES["conv_flatten_linear"].plan(model), model).model
    assert (new[0].in_channels, new[0].out_channels, new[0].groups) == (2, 9, 1)
    assert (new[2].in_channels, new[2].out_channels, new[2].groups) == (9, 12, 3)
    assert isinstance(new[6], BlockDiagonalLinear)
    assert new[6].weight.shape == (3, 8, 5)
    assert (new[8].in_features, new[8].out_features) == (15, 4)


def test_a_layer_between_two_regions_is_exit_and_entry() -> None:
    from tests.rewriting.builders import layer, region

    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(6)))
    found = tuple(
        region(model, [layer(model, str(i + k), k - 1, k if k < 2 else -1) for k in range(3)])
        for i in (0, 2)
    )
    plan = make_plan(model, (torch.ones(2, 6),), found, ((2, (4, 3)), (3, (2, 5))))
    new = rewrite(plan, model).model
    assert new[2].weight.shape == (6, 6)  # reads 2 x 3, writes 3 x 2
    assert new[3].weight.shape == (3, 2, 5)
    new(torch.ones(2, 6))


def test_a_split_into_the_original_is_the_identity() -> None:
    case = CASES["resnext"]
    model = case.model()
    plan = with_splits(case.plan(model), (2, (4, 4)), (2, (4, 4)))
    result = rewrite(plan, model)
    assert result.renamed == () and result.passes[0].details.startswith("0 ")
    assert same_state(parameters_of(result.model), parameters_of(model))


def test_same_seed_same_bytes_other_seed_others() -> None:
    case = CASES["cnn"]
    model = case.model()
    first, again, other = (
        parameters_of(rewrite(case.plan(model, seed), model).model) for seed in (5, 5, 6)
    )
    assert same_state(first, again)
    assert not same_state(first, other)


def test_flags_dtype_and_device_are_kept() -> None:
    case = CASES["cnn"]
    model = case.model()
    plan = case.plan(model)
    model.double().eval()
    model[3].requires_grad_(False)
    new = rewrite(plan, model).model
    assert all(not module.training for module in new.modules())
    assert {p.dtype for p in new.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in new[3].parameters())
    assert all(p.requires_grad for p in new[0].parameters())


def test_meta_models_are_rewritten_without_drawing() -> None:
    case = CASES["resnet"]
    plan = case.plan()
    new = rewrite(plan, case.model().to("meta")).model
    assert all(p.is_meta for p in new.parameters())
    assert sum(p.numel() for p in new.parameters()) == plan.planned.params


def test_inplace_changes_the_model_itself() -> None:
    case = CASES["resnet"]
    model = case.model()
    before = parameters_of(model)
    result = rewrite(case.plan(model), model, inplace=True)
    assert result.model is model and model.blocks[0].conv2.groups == 3
    assert same_state(parameters_of(revert(model)), before)


@each_case
def test_result_survives_what_users_do(case: Case) -> None:
    model = case.model()
    x = case.inputs()
    new = rewrite(case.plan(model), model).model.eval()
    expected = new(*x)
    twin = copy.deepcopy(new)
    assert torch.equal(twin(*x), expected)
    assert same_state(parameters_of(revert(twin)), parameters_of(model))
    buffer = io.BytesIO()
    torch.save(new.state_dict(), buffer)
    buffer.seek(0)
    other = rewrite(case.plan(model, seed=9), model).model.eval()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(*x), expected)
    assert new.train().training and not new.eval().training


@pytest.mark.thorough
def test_result_trains_compiles_and_pickles() -> None:
    case = CASES["resnet"]
    model = case.model()
    new = rewrite(case.plan(model), model).model
    optimiser = torch.optim.SGD(new.parameters(), 0.1)
    new(*case.inputs()).square().sum().backward()
    optimiser.step()
    new.eval()
    compiled = torch.compile(new, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*case.inputs()), new(*case.inputs()))
    buffer = io.BytesIO()
    torch.save(new, buffer)
    buffer.seek(0)
    assert is_rewritten(torch.load(buffer, weights_only=False))


def test_second_application_and_foreign_models_are_refused() -> None:
    case = CASES["tokens"]
    model = case.model()
    plan = case.plan(model)
    new = rewrite(plan, model).model
    with pytest.raises(StalePlanError, match="already"):
        rewrite(plan, new)
    with pytest.raises(StalePlanError, match="fingerprint"):
        rewrite(plan, CASES["cnn"].model())
    with pytest.raises(RewriteError, match="not a rewritten model"):
        revert(model)
    with pytest.raises(RewriteError, match="without keeping"):
        revert(rewrite(plan, model, keep_original=False).model)
    assert not is_rewritten(revert(new)) and is_rewritten(rewrite(plan, new).model)


def test_revert_refuses_a_model_changed_by_other_means() -> None:
    case = CASES["resnet"]
    model = case.model()
    new = rewrite(case.plan(model), model).model
    del new.head
    with pytest.raises(RewriteError, match="has lost 'head"):
        revert(new)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("fault", ["hook", "tie", "type", "weights", "operator"])
def test_failures_leave_the_model_as_it_was(fault: str, inplace: bool) -> None:
    case = CASES["resnet"]
    model = case.model()
    plan = case.plan(model)
    last = model.named["last"]
    if fault == "hook":
        last.bn2.register_forward_hook(lambda *_: None)
    elif fault == "tie":
        last.conv3.bias = model.blocks[0].conv3.bias
    elif fault == "type":
        last.conv2.forward = lambda x: x
    elif fault == "weights":
        last.conv2.weight.data[0, 0, 0, 0] = torch.nan
    elif fault == "operator":
        first, second = plan.regions
        layers = (*second.layers[:-1], replace(second.layers[-1], op="strange"))
        plan = replace(plan, regions=(first, replace(second, layers=layers)))
    if fault == "tie":
        plan = case.plan(model)
    before, modules = parameters_of(model), list(model.modules())
    with pytest.raises(RewriteError, match=r"named\.last|shares a parameter"):
        rewrite(plan, model, inplace=inplace)
    after = parameters_of(model)
    assert all(torch.equal(after[n].nan_to_num(), before[n].nan_to_num()) for n in before)
    assert [id(m) for m in model.modules()] == [id(m) for m in modules]
    assert not is_rewritten(model)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"region": "elsewhere"}, "does not describe"),
        ({"widths": (3,)}, "gives 1 widths"),
        ({"multiplicity": 0}, "without channels"),
        ({"widths": (3, 0)}, "without channels"),
    ],
)
def test_contradictory_plans_are_refused(splits: dict[str, object], message: str) -> None:
    case = CASES["tokens"]
    model = case.model()
    plan = case.plan(model)
    broken = replace(plan, splits=(edited(plan.splits[0], **splits),))
    with pytest.raises(RewriteError, match=message):
        rewrite(broken, model)
    with pytest.raises(RewriteError, match="twice"):
        rewrite(replace(plan, splits=plan.splits * 2), model)


@settings(max_examples=20)
@given(m=st.integers(1, 6), widths=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_counted_parameters_equal_the_formula(m: int, widths: tuple[int, int]) -> None:
    case = replace(CASES["flatten_exit"], splits=((m, widths),))
    model = case.model()
    plan = case.plan(model)
    new = rewrite(plan, model).model
    assert sum(p.numel() for p in new.parameters()) == plan.planned.params
    assert new(*case.inputs()).shape == (3, 3)
