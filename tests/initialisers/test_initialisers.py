"""Laws over every registered initialiser and every layer type that draws weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError, UsageError
from cerewrite.initialisers import INITIALISERS, Initialiser, custom_name, find_initialiser
from cerewrite.initialisers.base import CustomInitialiser, Original, fan_in, seeded_globally
from cerewrite.ir import EXIT_SCALES, Plan
from cerewrite.nn import BlockDiagonalLinear, ScaledLinear, with_scale
from cerewrite.ops import FAMILIES, LayerRule
from cerewrite.ops.linear import Turned
from cerewrite.rewriting import Change, Session, default_passes_with, revert, rewrite
from cerewrite.verifier import verify
from passes.reinitialise import Reinitialise
from passes.scale_exits import ScaleExits
from tests.rewriting.builders import Case, layer, region
from tests.rewriting.cases import CASES, parameters_of, same_state

WIDE = 112


def _dense(kind: Callable[..., nn.Module], *sizes: int) -> Callable[[], nn.Module]:
    options = () if kind in (nn.Linear, Turned) else (sizes[-1],)

    def build() -> nn.Module:
        return nn.Sequential(
            kind(WIDE, WIDE, *options), kind(WIDE, WIDE, *options), kind(WIDE, WIDE, *options)
        )

    return build


def _depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(WIDE, WIDE, 1), nn.Conv2d(WIDE, WIDE, 5, groups=WIDE), nn.Conv2d(WIDE, WIDE, 1)
    )


def _case(name: str, build: Callable[[], nn.Module], *sizes: int) -> Case:
    def regions(model: nn.Module):  # noqa: ANN202
        if name == "depthwise_conv":
            ends = [layer(model, "0", -1, 0), layer(model, "2", 0, -1)]
            return (region(model, ends, [("1", "depthwise_conv", 0)]),)
        return (
            region(model, [layer(model, n, i - 1, i % 2 - (i > 1)) for i, n in enumerate("012")]),
        )

    widths = (44,) if name == "depthwise_conv" else (48, 64)
    return Case(name, build, (64 if sizes else 256, WIDE, *sizes), regions, ((3, widths),))


LAYERS = {
    case.name: case
    for case in (
        _case("linear", _dense(nn.Linear)),
        _case("linear_turned", _dense(Turned)),
        _case("conv1d", _dense(nn.Conv1d, 2), 5),
        _case("conv2d", _dense(nn.Conv2d, 2), 4, 4),
        _case("conv3d", _dense(nn.Conv3d, 1), 2, 2, 2),
        _case("depthwise_conv", _depthwise, 6, 6),
        _case("conv_transpose1d", _dense(nn.ConvTranspose1d, 2), 4),
        _case("conv_transpose2d", _dense(nn.ConvTranspose2d, 2), 3, 3),
        _case("conv_transpose3d", _dense(nn.ConvTranspose3d, 1), 2, 2, 2),
    )
}


def fresh(case: Case, init: str, seed: int) -> nn.Module:
    """An original drawn in the way whose moments the initialiser promises to keep."""
    model = case.model(seed)
    for module in model if init != "reset" else ():
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in(module.weight)))
        nn.init.normal_(module.bias, mean=0.1, std=0.2)
    return model


def moments(model: nn.Module, shape: tuple[int, ...], seed: int) -> Tensor:
    """Mean squares of the output, and of the input's gradient under white gradients."""
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    x = torch.randn(shape, generator=generator, requires_grad=True)
    out = model(x)
    (grad,) = torch.autograd.grad(out, x, torch.randn(out.shape, generator=generator))
    return torch.stack([out.square().mean(), grad.square().mean()]).detach().double()


def log_ratios(case: Case, plan: Callable[[Plan], Plan], init: str, draws: int, **options: object):  # noqa: ANN201
    """Log of the ensemble's moments over the original's, per draw: ``[draws, 2]``."""
    found = []
    for seed in range(draws):
        model = fresh(case, init, seed)
        made = plan(case.plan(model, seed))
        passes = default_passes_with(Reinitialise(**options))
        new = rewrite(made, model, passes=passes).model
        pair = [moments(net, case.shape, seed) for net in (model, new)]
        found.append((pair[1] / pair[0]).log())
    return torch.stack(found)


def check_moments(ratios: Tensor, within: float) -> None:
    """The mean ratio is 1 within a tolerance, and the sample is large enough to say so."""
    mean, stderr = ratios.mean(0), ratios.std(0) / len(ratios) ** 0.5
    assert (4 * stderr < within).all(), stderr
    assert (mean.abs() < within).all(), mean


KINDS = [
    (name, init)
    for name in LAYERS
    for init in INITIALISERS
    if (name, init) != ("linear_turned", "reset")  # such a layer has no reset of its own: refused
]


def drawn(init: str, index: int) -> Callable[[Plan], Plan]:
    scale = EXIT_SCALES[index % 2]
    return lambda plan: replace(plan, init=init, exit_scale=scale)


@pytest.mark.parametrize("name", ["linear", "depthwise_conv"])
@pytest.mark.parametrize("init", INITIALISERS)
def test_moments_equal_the_originals(name: str, init: str) -> None:
    index = KINDS.index((name, init))
    check_moments(log_ratios(LAYERS[name], drawn(init, index), init, 6), 0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "init"), KINDS)
def test_moments_equal_the_originals_to_two_percent(name: str, init: str) -> None:
    index = KINDS.index((name, init))
    # one kernel per channel varies most: 100 draws leave a standard error of 0.0051
    draws = 140 if name == "depthwise_conv" else 100
    check_moments(log_ratios(LAYERS[name], drawn(init, index), init, draws), 0.02)


def test_every_layer_rule_has_a_case() -> None:
    """A new layer type must come under the law."""
    kinds = {
        kind for rule in FAMILIES.values() if isinstance(rule, LayerRule) for kind in rule.modules
    } - {BlockDiagonalLinear}  # what linear layers become: drawn in their cases
    covered = {type(module) for case in LAYERS.values() for module in case.model()}
    assert kinds <= covered


def test_planted_fault_exits_without_the_share_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that are added without their ``1 / sqrt(m)`` break the law."""
    kept = 3**-0.5
    monkeypatch.setattr("passes.scale_exits.with_scale", lambda module, _: with_scale(module, 1))
    monkeypatch.setattr(
        "passes.reinitialise.scale_of",
        lambda module: kept if isinstance(module, ScaledLinear) else 1.0,
    )
    ratios = log_ratios(LAYERS["linear"], drawn("gain", 1), "gain", 6)
    assert ratios.mean().item() == pytest.approx(math.log(3) * 0.9, rel=0.15)
    with pytest.raises(AssertionError):
        check_moments(ratios, 0.15)


def test_names_are_known_and_documented() -> None:
    assert {"gain", "he", "orthogonal", "reset"} <= set(INITIALISERS)
    for name, item in INITIALISERS.items():
        assert isinstance(item, Initialiser) and item.name == name and type(item).__doc__


@pytest.mark.parametrize("init", INITIALISERS)
@pytest.mark.parametrize("name", ["resnext", "conv_flatten_linear", "flatten_exit", "cnn"])
def test_same_seed_same_bytes_and_every_check_passes(init: str, name: str) -> None:
    case = CASES[name]
    model = case.model()
    before = torch.get_rng_state()
    plan = replace(case.plan(model), init=init, exit_scale="explicit")
    first, second = (rewrite(plan, model).model for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_state(parameters_of(first), parameters_of(second))
    other = rewrite(replace(plan, seed=1), model).model
    assert not same_state(parameters_of(first), parameters_of(other))
    failures = verify(model, first, plan, case.inputs()).failures
    assert not failures, failures
    assert same_state(parameters_of(revert(first)), parameters_of(model))


def test_reset_draws_what_the_original_draws() -> None:
    case = LAYERS["linear"]
    model = case.model()
    with torch.no_grad():
        model[1].weight.mul_(7)
    new = rewrite(replace(case.plan(model), init="reset"), model).model
    weight = new[1].weight.detach()
    bound = weight.shape[1] ** -0.5
    assert weight.abs().max() <= bound * (1 + 1e-6)
    assert (weight.abs() > 0.9 * bound).double().mean() == pytest.approx(0.1, abs=0.02)
    assert new[1].bias.abs().max() <= WIDE**-0.5 * (1 + 1e-6)


def test_orthogonal_blocks_are_orthogonal() -> None:
    case = LAYERS["linear"]
    model = case.model()
    new = rewrite(replace(case.plan(model), init="orthogonal"), model).model
    exits = new[2].weight.detach().chunk(3, 1)
    for block in (*new[1].weight.detach(), *exits):
        short = block if block.shape[0] <= block.shape[1] else block.T
        gram = short @ short.T
        assert torch.allclose(gram, gram[0, 0] * torch.eye(len(short)), atol=1e-4)


def test_an_explicit_exit_is_a_multiplier() -> None:
    case = LAYERS["linear"]
    model = case.model()
    folded, explicit, mean = (
        rewrite(replace(case.plan(model), exit_scale=scale), model).model for scale in EXIT_SCALES
    )
    assert type(folded[2]) is nn.Linear
    assert isinstance(explicit[2], ScaledLinear) and explicit[2].scale == 3**-0.5
    assert "scale=0.57735" in repr(explicit[2])
    assert torch.allclose(explicit[2].weight * 3**-0.5, folded[2].weight)
    x = case.inputs()[0]
    assert torch.allclose(folded(x), explicit(x), atol=1e-5)
    assert list(folded.state_dict()) == list(explicit.state_dict())
    assert isinstance(mean[2], ScaledLinear) and mean[2].scale == 1 / 3
    assert torch.equal(mean[2].weight, explicit[2].weight)
    assert same_state(parameters_of(mean), parameters_of(explicit))


def test_a_users_function_is_seeded_and_leaves_no_trace() -> None:
    case = LAYERS["conv2d"]
    model = case.model()
    before = torch.get_rng_state()
    passes = default_passes_with(Reinitialise(nn.init.xavier_uniform_))
    first, second = (rewrite(case.plan(model), model, passes=passes).model for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_state(parameters_of(first), parameters_of(second))
    bound = math.sqrt(6 / ((48 + 64) * 4))
    assert 0.99 * bound < first[1].weight.abs().max() <= bound
    name = custom_name(nn.init.xavier_uniform_)
    assert name == "torch.nn.init:xavier_uniform_"
    with pytest.raises(RewriteError, match="which a plan cannot hold"):
        rewrite(replace(case.plan(model), init=name), model)
    again = rewrite(replace(case.plan(model), init=name), model, passes=passes).model
    assert same_state(parameters_of(first), parameters_of(again))


def test_a_failing_function_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded_globally(torch.Generator()):
        torch.rand(1)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown initialiser 'gian'") as error:
        find_initialiser("gian")
    assert "gain" in error.value.advice
    assert find_initialiser("gain", "he") is INITIALISERS["he"]
    assert isinstance(find_initialiser("x:y", nn.init.ones_), CustomInitialiser)


def test_reset_needs_reset_parameters() -> None:
    original = Original("x", nn.ReLU(), 1.0, 4)
    with pytest.raises(RewriteError, match="'x' has no reset_parameters"):
        INITIALISERS["reset"].draw(torch.empty(2, 2), original, torch.Generator())


def test_what_cannot_carry_a_multiplier_is_refused() -> None:
    case = LAYERS["linear"]
    model = case.model()
    plan = replace(case.plan(model), exit_scale="explicit")
    bad = replace(plan.regions[0].layers[2], name="1")
    session = Session(model, plan)
    session.swap("1", BlockDiagonalLinear(WIDE, WIDE, 2))
    region = replace(plan.regions[0], layers=(bad,))
    session.changes = (Change(region, plan.splits[0]),)
    with pytest.raises(RewriteError, match="cannot carry a multiplier"):
        ScaleExits().apply(session)
