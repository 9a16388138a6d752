"""The default estimator: level by draws, structure by the closed form, and what it says."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite import ir
from cerewrite.analysis import analyze
from cerewrite.errors import AnalysisError, NotFiniteError, UsageError
from cerewrite.estimators import limited, monte_carlo
from cerewrite.estimators.analytic import Analytic
from cerewrite.estimators.auto import closed_form_digits
from cerewrite.estimators.limited import affordable, splitting_draws
from cerewrite.frontend.tracing import trace


def chain(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    pairs = zip((6, *widths[:-1]), widths, strict=True)
    layers = [layer for n_in, n_out in pairs for layer in (nn.Linear(n_in, n_out), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 3))


def conv_net(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 3),
    )


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


MAPS = noise(4, 2, 6, 6)


@pytest.fixture(scope="module")
def conv() -> ir.Analysis:
    return cerewrite.analyze(conv_net(), MAPS, draws=96)


@pytest.mark.thorough
def test_it_is_the_default_and_agrees_with_long_draws_where_the_closed_form_is_far_off(
    conv: ir.Analysis,
) -> None:
    """The closed form takes positions as alike; ten times too high here."""
    long = cerewrite.analyze(conv_net(), MAPS, estimator="monte-carlo", draws=600, seed=5)
    closed = cerewrite.analyze(conv_net(), MAPS, estimator="analytic")
    assert conv.estimator == "auto"
    for name in ("nu", "log_variance"):
        found, truth, flat = (getattr(one, name) for one in (conv, long, closed))
        error = math.hypot(found.stderr, truth.stderr)
        assert abs(found.value - truth.value) < 4 * error < 0.8 * truth.value
        assert flat.value > truth.value + 4 * error


def test_one_baseline_in_analysis_and_plan(conv: ir.Analysis) -> None:
    plan = cerewrite.plan(conv)
    for name in ("nu", "log_variance", "leading_order"):
        assert getattr(plan.baseline, name) == getattr(conv, name).value
    assert plan.draws == 96
    assert plan.estimator == "auto"


@pytest.mark.parametrize("estimator", ["auto", "analytic", "jackknife", "monte-carlo"])
def test_regions_and_layers_compose_to_what_the_analysis_states(estimator: str) -> None:
    """All of a chain's measures stand in its one region."""
    draws = {} if estimator == "analytic" else {"draws": 16}
    found = cerewrite.analyze(chain(12, 12, 12), noise(2, 6), estimator=estimator, **draws)  # type: ignore[arg-type]
    (region,) = found.regions
    assert region.nu == pytest.approx(found.nu.value, rel=1e-6)
    assert region.log_variance == pytest.approx(found.log_variance.value, rel=1e-6)


def test_the_same_draws_make_the_same_bytes(conv: ir.Analysis) -> None:
    again = cerewrite.analyze(conv_net(), MAPS, draws=96)
    assert ir.dumps(again) == ir.dumps(conv)


def test_the_note_says_which_draws_make_the_figures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited, "MOST", 24)
    first = cerewrite.analyze(chain(8, 8), noise(2, 6), seconds=600.0)
    count = first.nu.samples
    assert f"--draws {count}" in first.assumptions[0]
    again = cerewrite.analyze(chain(8, 8), noise(2, 6), draws=count)
    assert again.nu == first.nu
    assert again.layers == first.layers


def test_dense_networks_use_the_closed_form_for_what_draws_are_few_for() -> None:
    closed = cerewrite.analyze(chain(64, 64), noise(2, 6), estimator="analytic", gain="he")
    found = cerewrite.analyze(chain(64, 64), noise(2, 6), gain="he", draws=32)
    assert found.nu.stderr is not None
    assert found.nu.stderr <= 0.03 * closed.nu.value
    assert found.nu.value == pytest.approx(closed.nu.value, rel=0.05)


def test_layers_that_contradict_the_closed_form_are_named() -> None:
    """A user's initialiser that the closed form knows nothing of: one shared scale per draw."""

    def scaled(model: nn.Module, generator: torch.Generator) -> None:
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
        next(iter(model.parameters())).mul_((2.0 * torch.randn(1, generator=generator)).exp())

    found = cerewrite.analyze(chain(32, 32), noise(2, 6), draws=64, redraw=scaled)
    (line,) = [text for text in found.assumptions if "closed form and draws differ" in text]
    assert "the draws count" in line
    assert found.nu.value > 0.5


def test_without_a_closed_form_it_measures_and_says_so_in_a_line() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = chain(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(torch.sort(x, dim=-1).values.cumsum(-1))

    torch.manual_seed(0)
    found = cerewrite.analyze(Odd(), noise(2, 6), draws=24)
    assert sum("no closed form, measured alone" in text for text in found.assumptions) == 1
    assert found.nu.stderr is not None
    assert found.nu.value > 0


def test_meta_models_have_the_closed_form_alone_and_say_what_it_rests_on() -> None:
    with torch.device("meta"):
        net = conv_net()
    found = cerewrite.analyze(net, torch.empty(4, 2, 6, 6, device="meta"), gain="he")
    assert found.assumptions[0].startswith("WARNING: closed form alone")
    assert "meta device" in found.assumptions[0]
    assert "no bound" in found.assumptions[1]
    assert found.digits == 1
    assert found.nu.stderr is None


def test_a_time_limit_too_short_for_the_draws_is_said() -> None:
    found = cerewrite.analyze(chain(8, 8), noise(2, 6), seconds=1e-6)
    assert "do not fit the time limit of 1e-06 s" in found.assumptions[0]
    assert found.nu.value > 0


def test_time_is_kept() -> None:
    start = time.perf_counter()
    found = cerewrite.analyze(conv_net(64), noise(4, 2, 24, 24), seconds=1.0)
    assert found.nu.samples >= 8 or found.assumptions[0].startswith("WARNING")
    assert time.perf_counter() - start < 15


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = chain(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x / 0.0)


def test_draws_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(NotFiniteError, match="first seen behind"):
        cerewrite.analyze(Broken(), noise(2, 6), draws=8)


def test_constant_inputs_are_said_and_never_a_silent_zero() -> None:
    """Batch norms see no variation, so that K is zero in every draw."""
    found = cerewrite.analyze(conv_net(), torch.zeros(4, 2, 6, 6), draws=16)
    assert "the inputs do not vary" in found.assumptions[0]
    assert found.nu.value > 0
    dead = conv_net()
    for layer in dead:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.bias)
    found = cerewrite.analyze(dead, torch.zeros(4, 2, 6, 6), draws=16)
    assert found.assumptions[0].startswith("WARNING: closed form alone")
    assert "zero in" in found.assumptions[0]
    assert "the inputs do not vary" in found.assumptions[0]
    assert found.nu.value > 0
    plain = cerewrite.analyze(chain(8, 8), torch.ones(2, 6), draws=16)
    assert "the inputs do not vary" in plain.assumptions[0]
    assert plain.nu.stderr is not None


def test_what_neither_measures_nor_has_a_closed_form_is_an_error() -> None:
    net = chain(8, 8)
    nn.init.zeros_(net[-1].weight)
    with pytest.raises(AnalysisError, match=r"nothing can be measured.*closed form refuses"):
        cerewrite.analyze(net, noise(2, 6), draws=16)


@pytest.mark.parametrize("seconds", [math.nan, -1.0, 0.0, math.inf])
def test_time_limits_that_are_none(seconds: float) -> None:
    net = chain(8, 8)
    with pytest.raises(UsageError, match="time limit"):
        analyze(trace(net, noise(2, 6)), net, noise(2, 6), seconds=seconds)


def test_too_few_draws_were_asked_for() -> None:
    with pytest.raises(UsageError, match="too few"):
        cerewrite.analyze(chain(8, 8), noise(2, 6), draws=3)


def test_one_closed_form_and_one_copy_serve_levels_and_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    for place, name in ((Analytic, "estimate"), (monte_carlo, "make_subject")):
        real = getattr(place, name)
        monkeypatch.setattr(
            place, name, lambda *a, real=real, **k: asked.append(real) or real(*a, **k)
        )
    found = cerewrite.analyze(chain(8, 8), noise(2, 6), draws=8)
    assert len(asked) == len(set(asked)) == 2
    assert any("jackknife draws" in line for line in found.assumptions)


def test_draws_are_counted_out() -> None:
    """Equation 106."""
    assert affordable(20.0, 0.01) == 1952
    assert affordable(7.0, 1.0) == 4
    assert [splitting_draws(count) for count in (8, 16, 40, 512)] == [2, 2, 5, 8]


def test_digits_that_a_closed_form_has() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    assert closed_form_digits(trace(chain(8), noise(2, 6))) == 3
    assert closed_form_digits(trace(net, noise(2, 6))) == 2
    assert closed_form_digits(trace(conv_net(), MAPS)) == 1
