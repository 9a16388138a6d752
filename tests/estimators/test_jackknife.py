from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.estimators import ESTIMATORS, Assumption, LayerCorrection
from cerewrite.estimators.draws import Gates, find_units
from cerewrite.estimators.draws.blend import blend, small_sample
from cerewrite.estimators.draws.influence import Influence, influences
from cerewrite.estimators.draws.layout import Layout
from cerewrite.estimators.draws.norms import into_norm, out_of_norm
from cerewrite.estimators.draws.places import Place
from cerewrite.estimators.jackknife import _corrected
from cerewrite.estimators.monte_carlo import subject_of
from cerewrite.frontend.tracing import trace
from cerewrite.nn import ChannelLayerNorm, MemberLayerNorm
from tests.models import ResidualNet, chain, plain_cnn


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def layers(model: nn.Module, x: Any, **options: Any) -> tuple[LayerCorrection, ...]:
    assumption = Assumption(**options)
    return ESTIMATORS["jackknife"].estimate(trace(model, x), model, x, assumption).layers


@pytest.fixture(scope="module")
def deep_relu() -> tuple[LayerCorrection, ...]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return layers(chain([96] * 4), torch.ones(2, 7), gain=2.0, draws=150)


@pytest.mark.thorough
def test_relu_chain_layer_by_layer(deep_relu: tuple[LayerCorrection, ...]) -> None:
    for index, layer in enumerate(deep_relu[:-1], start=1):
        up = (5 - index) / 5
        truth = (5 - 8 * up * (1 - up)) / 96
        assert layer.stderr is not None
        assert abs(layer.kappa - truth) < 4 * layer.stderr + 0.04 * truth
        assert 4 * layer.stderr < 0.5 * truth
    assert deep_relu[-1].kappa == 0 and "read-out" in deep_relu[-1].note


def test_coefficient_times_rho_is_the_kappa(deep_relu: tuple[LayerCorrection, ...]) -> None:
    for at in deep_relu[:-1]:
        moments = (
            at.v_aa * at.forward_share**2
            + at.v_bb * at.backward_share**2
            + 2 * at.v_ab * at.forward_share * at.backward_share
        )
        assert at.rho * (moments + at.c_norm) / 96 == pytest.approx(at.kappa, rel=1e-9)


@pytest.mark.thorough
def test_sum_of_a_chain_and_a_planted_fault() -> None:
    found = layers(chain([128] * 2, activation=nn.Identity), torch.ones(2, 7), gain=1.0, draws=900)
    # linear: kappa = (2 f_up^2 + 2 f_dn^2) / n
    truth = 2 * (2 * (4 / 9) + 2 * (1 / 9)) / 128
    total = sum(layer.kappa for layer in found)
    stderr = math.sqrt(sum((layer.stderr or 0.0) ** 2 for layer in found))
    assert abs(total - truth) < 4 * stderr < 0.05 * truth
    assert abs(1.05 * total - truth) > 4 * stderr


@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU])
def test_gates_suit_any_activation(activation: type[nn.Module]) -> None:
    model, x = chain([96, 96], activation=activation), torch.ones(2, 7)
    found = layers(model, x, gain=1.5, draws=60)
    closed = ESTIMATORS["analytic"].estimate(trace(model, x), model, x, Assumption(gain=1.5)).layers
    for at, exact in zip(found[:-1], closed, strict=False):
        assert at.stderr is not None
        assert abs(at.kappa - exact.kappa) < 4 * at.stderr + 0.05 * exact.kappa
        assert 0.7 < at.rho < 1.4


def test_white_noise_maps_have_a_small_spatial_factor() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 2),
    )  # fmt: skip
    flat, noise = torch.ones(1, 3, 12, 12), torch.randn(1, 3, 12, 12)
    smooth, rough = (layers(model, x, gain=2.0, draws=24) for x in (flat, noise))
    assert all(a.rho > 1.3 * b.rho > 0 for a, b in zip(smooth[:-1], rough[:-1], strict=True))
    assert rough[0].rho < 0.3


def test_units_of_a_residual_stream_are_shared() -> None:
    net, x = ResidualNet(channels=16, width=8, blocks=2), torch.randn(4, 3, 6, 6)
    units = find_units(trace(net, x), net)
    stream = units.classes["stem"]
    assert stream[1] == 16
    assert set(units.writers["stem"]) == {"stem", "blocks.0.conv3", "blocks.1.conv3"}
    reads = {p.module for p in units.reads if int(p.ids[0]) == stream[0]}
    assert reads == {"blocks.0.conv1", "blocks.1.conv1", "head"}


def test_concatenated_units_reach_their_readers() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(11, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.c(torch.cat([y, self.b(y.relu())], dim=1).tanh())

    net = Dense()
    units = find_units(trace(net, torch.randn(2, 4)), net)
    assert next(p for p in units.reads if p.module == "c").ids.tolist() == list(range(11))


@pytest.mark.parametrize("norms", ["train", "eval"])
def test_norms_pools_flatten_and_depthwise(norms: str) -> None:
    model = plain_cnn()
    before = copy.deepcopy(model.state_dict())
    found = layers(model, torch.randn(4, 3, 9, 9), gain=2.0, draws=3, norms=norms)
    assert all(math.isfinite(layer.kappa) and layer.kappa > 0 for layer in found[:-1])
    assert found[-1].kappa == 0 and "read-out" in found[-1].note
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module._forward_hooks for module in model.modules())


def test_layer_norm_sees_the_units_energy() -> None:
    model = nn.Sequential(
        nn.Linear(7, 64), nn.LayerNorm(64), nn.ReLU(),
        nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 1),
    )  # fmt: skip
    x = torch.randn(2, 7)
    traced = trace(model, x)
    subject = subject_of(traced, model, x, Assumption(gain=2.0))
    units = find_units(traced, subject.model)
    gates = Gates(units, subject.model[0].weight)
    found = influences(subject, gates, 0)
    # scaling a whole layer in front of its norm changes the gradient's scale alone
    assert len(units.norms) == 2
    assert found["3"].up + found["3"].down == pytest.approx(0.0, abs=0.35)


@pytest.mark.parametrize("kind", ["group", "layer", "member", "channel", "rms"])
def test_norms_take_the_statistics_of_weighed_units(kind: str) -> None:
    torch.manual_seed(0)
    norm: nn.Module = {
        "group": nn.GroupNorm(2, 6), "layer": nn.LayerNorm(6), "member": MemberLayerNorm(6, 2),
        "channel": ChannelLayerNorm(6, 1), "rms": nn.RMSNorm(6),
    }[kind].double()  # fmt: skip
    first = kind in ("group", "channel")
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 6, 5, dtype=torch.float64) + 0.7
    x = x if first else x.transpose(1, 2)
    axis, members = (1 if first else -1), (2 if kind in ("group", "member") else 1)
    place = Place("", axis, np.arange(6), centred=kind != "rms")

    def gated(w: Tensor) -> Tensor:
        root = (w[:, None] if first else w).sqrt()
        y = into_norm(norm, x, root, place)
        return out_of_norm(norm, y, norm(y), root, place)

    def stated(w: Tensor) -> Tensor:
        parts = (x if first else x.transpose(1, 2)).unflatten(1, (members, -1))
        weights = w.unflatten(0, (members, -1))[None, :, :, None].expand_as(parts)
        over = (2, 3) if kind == "group" else (2,)
        total = weights.sum(over, keepdim=True)
        mean = (weights * parts).sum(over, keepdim=True) / total if place.centred else 0.0
        energy = (weights * (parts - mean) ** 2).sum(over, keepdim=True) / total
        out = ((parts - mean) / (energy + (norm.eps or 0.0)).sqrt()).flatten(1, 2)
        bias = norm.bias if getattr(norm, "bias", None) is not None else torch.zeros(6)
        out = out * norm.weight[:, None] + bias[:, None]
        return out if first else out.transpose(1, 2)

    ones = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(gated(ones), stated(ones))
    slopes = [torch.autograd.functional.jacobian(f, ones) for f in (gated, stated)]
    own = [s.unflatten(-1, (members, -1)) for s in slopes]
    free = [s - s.mean(-1, keepdim=True) for s in own]  # up to what a member's units share
    torch.testing.assert_close(free[0], free[1], rtol=1e-4, atol=1e-5)


def test_attention_is_measured() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
            self.out = nn.Linear(8, 8)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.q(x), self.k(x), self.v(x)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.head(self.out(mixed))

    found = {at.layer: at for at in layers(Attention(), torch.randn(2, 5, 8), gain=1.0, draws=8)}
    assert all(found[name].kappa > 0 for name in ("q", "k", "v", "out"))


def test_no_closed_form_leaves_the_jackknife() -> None:
    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 12), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.cumsum(self.a(x).tanh(), 1))

    at = layers(Unknown(), torch.randn(2, 4), draws=6)[0]
    assert "no closed form" in at.note and at.kappa >= 0


@pytest.mark.parametrize(("width", "warned"), [(8, True), (64, False)])
def test_corrections_too_large_to_compose_are_warned_of(width: int, warned: bool) -> None:
    model, x = chain([width] * 8), torch.ones(2, 7)
    options = Assumption(gain=2.0, draws=4)
    found = ESTIMATORS["jackknife"].estimate(trace(model, x), model, x, options)
    assert warned == (sum(layer.kappa for layer in found.layers) > 1)
    assert warned == any(text.startswith("WARNING") for text in found.assumptions)


def test_dead_draws_and_too_few() -> None:
    with pytest.raises(AnalysisError, match="too few"):
        layers(chain([8]), torch.ones(2, 7), draws=1)
    zero = chain([4])
    nn.init.zeros_(zero[0].weight)
    with pytest.raises(AnalysisError, match="zero in 4 of 4"):
        layers(zero, torch.ones(2, 7), draws=4)


def influence(cleared: float, **others: float) -> Influence:
    sure = {"noise": 0.0, "fitted": 1.0, "slack": 0.0, "plain": 0.5, "up": 0.0, "down": 0.0}
    return Influence(cleared=cleared, **(sure | others))


def test_what_has_less_bias_counts_as_far_as_its_error_allows() -> None:
    sharp = [influence(2.0 + 0.001 * i) for i in (-1, 1)]
    rough = [influence(2.0 + 100.0 * i) for i in (-1, 1)]
    assert blend(sharp)[0] == pytest.approx(2.0, abs=1e-3)
    assert blend(rough)[0] == pytest.approx(1.0, abs=1e-3)
    assert blend([replace(at, noise=1e4) for at in sharp])[0] == pytest.approx(1.0, abs=1e-3)
    assert blend([replace(at, slack=1e4) for at in rough])[0] == pytest.approx(0.5, abs=1e-3)
    assert blend([replace(at, cleared=-9.0) for at in sharp])[0] == pytest.approx(1.0)


class Mixer(nn.Module):
    """One block over tokens, one over channels; as many tokens as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(4, 16), nn.Linear(16, 2)
        self.first, self.last = nn.Linear(16, 12), nn.Linear(12, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + self.last(self.first(x.transpose(1, 2)).tanh()).transpose(1, 2)
        return self.head((x + self.down(self.up(x).tanh())).mean(1))


def test_tokens_are_no_units_and_sums_tie_channels() -> None:
    net = Mixer()
    units = find_units(trace(net, torch.randn(1, 16, 4)), net)
    assert units.across == {"first": "first", "last": "last"}
    assert {"enter", "down"} <= set(units.writers["enter"])
    assert not {p.module for p in (*units.reads, *units.writes)} & {"first", "last"}


@pytest.mark.thorough
def test_layers_over_tokens_against_monte_carlo() -> None:
    torch.manual_seed(0)
    net, x = Mixer(), torch.randn(1, 16, 4)
    assumption = Assumption(gain=1.0, draws=600, seed=3)
    drawn = ESTIMATORS["monte-carlo"].estimate(trace(net, x), net, x, assumption).log_variance
    assert drawn is not None and drawn.stderr is not None
    found = layers(net, x, gain=1.0, draws=48)
    tokens = [at for at in found if at.layer in ("first", "last")]
    stderr = math.hypot(drawn.stderr, *((at.stderr or 0.0) for at in found))
    assert 2 * stderr < 0.35 * drawn.value  # what the draws resolve
    assert sum(at.kappa for at in found) == pytest.approx(drawn.value, abs=2 * stderr)
    assert sum(at.kappa for at in tokens) > 0.35 * drawn.value


@pytest.mark.parametrize(("units", "degrees"), [(8, 1), (16, 1), (16, 8), (8, 64)])
def test_few_units_take_no_more_away_than_is_stated(units: int, degrees: int) -> None:
    """log K of n energies of ``degrees`` squares of Gaussians: kappa is ``2 / (degrees n)``."""
    energies = np.random.default_rng(0).chisquare(degrees, (20_000, units))
    shares = energies / energies.sum(1, keepdims=True)
    squares = ((shares - shares.mean(1, keepdims=True)) ** 2).sum(1)
    raw, stderr = squares.mean(), squares.std() / math.sqrt(len(squares))
    truth = 2 / (degrees * units)
    assert 4 * stderr < 0.02 * truth  # what the draws resolve
    assert raw * small_sample(units, raw, 1.0) == pytest.approx(truth, rel=0.04)
    assert raw < (1 - 0.5 / units) * truth - 4 * stderr


@pytest.mark.parametrize("fixed_rows", [False, True])
def test_noise_is_what_other_units_put_into_the_rates(fixed_rows: bool) -> None:
    """Rates ``sum_j W_ji G_ji / 2`` of a mean that units have, and noise, rows held or not."""
    generator, units, partners = torch.Generator().manual_seed(0), 6, 16
    signal = torch.linspace(-3.0, 3.0, units, dtype=torch.float64)
    left, kept = [], []
    for _ in range(3000):
        pair = torch.randn(2, partners, units, generator=generator, dtype=torch.float64)
        weight, gradient = pair
        if fixed_rows:  # as behind a batch norm: the gradient is orthogonal to its row
            along = (gradient * weight).sum(1, keepdim=True) / weight.square().sum(1, keepdim=True)
            gradient = gradient - along * weight
        gradient = gradient + 2 * signal / (partners * weight)
        rates = (weight * gradient).sum(0) / 2
        squares = float((rates - rates.mean()).square().sum())
        left.append(squares - Layout().columns(weight, gradient, units).sum() / 4)
        kept.append(squares)
    truth, stderr = float(signal.square().sum()), np.std(left) / math.sqrt(len(left))
    assert 4 * stderr < 0.1 * truth  # what the draws resolve
    assert abs(np.mean(left) - truth) < 4 * stderr
    assert np.mean(kept) - truth > 20 * stderr


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["depthwise", "transposed"])
def test_depthwise_and_transposed_convolutions_against_monte_carlo(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    c = 40
    middle = {
        "depthwise": [nn.Conv2d(c, c, 3, groups=c, bias=False), nn.ReLU(), nn.Conv2d(c, c, 1)],
        "transposed": [nn.ConvTranspose2d(c, c, 2, 2, bias=False), nn.ReLU(), nn.Conv2d(c, c, 3)],
    }[kind]
    stem: list[nn.Module] = [nn.Conv2d(3, c, 3, bias=False), nn.ReLU()]
    head: list[nn.Module] = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 2)]
    model, x = nn.Sequential(*stem, *middle, *head), torch.randn(1, 3, 6, 6)
    assumption = Assumption(gain=2.0, draws=500, seed=3)
    drawn = ESTIMATORS["monte-carlo"].estimate(trace(model, x), model, x, assumption).log_variance
    assert drawn is not None and drawn.stderr is not None
    band = 0.2 * drawn.value + 2 * drawn.stderr
    found = layers(model, x, gain=2.0, draws=24)
    assert not any(at.note.startswith("closed form") for at in found)
    assert sum(at.kappa for at in found) == pytest.approx(drawn.value, abs=band)
    if kind == "depthwise":  # what no other unit reads is a part that shows
        monkeypatch.setattr("cerewrite.estimators.draws.influence._add_own", lambda *_: None)
        without = sum(at.kappa for at in layers(model, x, gain=2.0, draws=24))
        assert without < 0.9 * sum(at.kappa for at in found)


def test_grouped_transposed_convolutions_keep_the_closed_form() -> None:
    body = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 8, 2, 2, groups=2), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
    found = layers(nn.Sequential(*body, *head), torch.randn(1, 3, 5, 5), gain=2.0, draws=2)
    assert "grouped transposed" in found[1].note and found[1].kappa > 0


def test_a_layer_that_nothing_passes_has_no_moments() -> None:
    at = LayerCorrection("conv", 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, None, "")
    still = Influence(1e-9, 0.0, 0.0, 0.0, 0.0, up=0.0, down=0.0)
    found = _corrected(at, 8, 1.0, [still, still])
    assert (found.kappa, found.v_aa, found.note) == (0.0, 0.0, "nothing of the kernel passes it")
