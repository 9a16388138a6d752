"""Every diagnostic equals an independent implementation to 1e-5; a planted fault does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.diagnostics import (
    DIAGNOSTICS,
    capacity,
    curvature,
    gradient_confusion,
    gradient_norm,
    hyper_kernel,
    kernel_drift,
    local_map,
    multiverse,
    naswot,
    residual_kernel,
    synflow,
    variance_constancy,
    virtual_depth,
    zico,
)
from cerewrite.diagnostics.material import Material
from cerewrite.estimators.exact_relu import exact_relu_nu
from tests.diagnostics import oracles
from tests.diagnostics.nets import Gated, case, material, mlp

TOLERANCE = 1e-5


class TwoHeads(nn.Module):
    """Two linear heads on one tensor, added."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(self.body(x))
        return self.one(features) + self.two(features)


def own(factory: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor, Tensor, Material]:
    torch.manual_seed(3)
    model = factory().double()
    _, x, y, _ = case("mlp")
    return model, x, y, material(model, x, y)


CASES: list[tuple[str, str, Any, oracles.Oracle]] = [
    ("gradient-norm", "mlp", None, oracles.gradient_norm),
    ("gradient-norm", "residual_cnn", None, oracles.gradient_norm),
    ("gradient-confusion", "mlp", None, oracles.gradient_confusion),
    ("gradient-confusion", "residual_cnn", None, oracles.gradient_confusion),
    ("zico", "mlp", None, oracles.zico),
    ("synflow", "mlp", None, oracles.synflow),
    ("naswot", "wide", lambda: mlp(10), oracles.naswot),
    ("curvature", "mlp", None, oracles.curvature),
    ("curvature", "residual_cnn", None, oracles.curvature),
    ("virtual-depth", "residual_mlp", None, oracles.virtual_depth),
    ("kernel-drift", "mlp", None, oracles.drift),
    ("hyper-kernel", "gated", None, oracles.hyper_kernel),
    ("hyper-kernel", "tied", lambda: Gated(tied=True), oracles.hyper_kernel),
    ("local-map", "mlp", None, oracles.local_maps),
    ("local-map", "residual_mlp", None, oracles.local_maps),
    ("variance-constancy", "mlp", None, oracles.variance_constancy),
    ("multiverse", "two_heads", TwoHeads, oracles.multiverse),
    ("capacity", "mlp", None, oracles.capacity),
]


def differences(name: str, net: str, factory: Any, oracle: oracles.Oracle) -> dict[str, float]:
    """Relative differences, figure by figure."""
    model, x, y, given = case(net) if factory is None else own(factory)
    with torch.enable_grad():
        found = DIAGNOSTICS[name].read(given).figures
    expected = oracle(model, x, y)
    assert set(expected) <= set(found)
    return {
        key: abs(found[key] - value) / max(abs(value), 1e-2) for key, value in expected.items()
    }


@pytest.mark.parametrize("row", CASES, ids=lambda row: f"{row[0]}-{row[1]}")
def test_it_is_what_it_says(row: tuple[str, str, Any, oracles.Oracle]) -> None:
    assert max(differences(*row).values()) < TOLERANCE


def _scaled(module: Any, name: str, factor: float) -> tuple[Any, str, Any]:
    true = getattr(module, name)
    return module, name, lambda *args, **options: factor * true(*args, **options)


def _without_bias(material: Material) -> Any:
    return {name: w for name, w in list(Material.layer_weights(material).items())[1:]}


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    # what counts as zero is half the spectrum
    "local-map": lambda patch: patch.setattr(local_map, "ZERO", 0.5),
    # one step too few
    "kernel-drift": lambda patch: patch.setattr(kernel_drift, "STEPS", 3),
    # differences on another grid than the formulas take
    "hyper-kernel": lambda patch: patch.setattr(
        hyper_kernel, "_central", lambda y: [4 * (y[4] - y[0])] * 4
    ),
    # beta left out
    "variance-constancy": lambda patch: patch.setattr(variance_constancy, "BETA", 0.0),
    # Gauss-Newton without the second derivative of the loss
    "curvature": lambda patch: patch.setattr(
        curvature, "_gauss_newton", lambda m, z, loss, v: (1.0, v)
    ),
    # depths in place of shares
    "virtual-depth": lambda patch: patch.setattr(
        virtual_depth, "depth_shares", lambda values: torch.tensor([0.5, 0.5, 0.0]).double()
    ),
    # losses of the first example alone
    "gradient-confusion": lambda patch: patch.setattr(
        gradient_confusion, "example_products", _on_half
    ),
    # the largest channels forgotten
    "capacity": lambda patch: patch.setattr(
        capacity, "model_bits", lambda layers: {y.name: y.params for y in layers}
    ),
    # |w| forgotten
    "synflow": lambda patch: patch.setattr(
        synflow, "saliencies", lambda m: {"0": float(m.model[0].weight.abs().sum())}
    ),
    # a head compared with itself
    "multiverse": lambda patch: patch.setattr(
        multiverse, "head_weights", lambda m: {"one": torch.stack([m.model.one.weight] * 2)}
    ),
    # a layer forgotten
    "gradient-norm": lambda patch: patch.setattr(
        gradient_norm.Material, "layer_weights", lambda self: {"0": "0.weight"}
    ),
    "zico": lambda patch: patch.setattr(
        zico.Material, "layer_weights", lambda self: {"0": "0.weight"}
    ),
    # codes of values in place of signs
    "naswot": lambda patch: patch.setattr(naswot, "watch", _all_on),
    # the twin of one layer
    "residual-kernel": lambda patch: patch.setattr(
        residual_kernel, "exact_relu_nu", lambda widths: exact_relu_nu(widths[:1])
    ),
    "kernel-measures": lambda patch: patch.setattr(
        "cerewrite.diagnostics.ours.closed_form", _half_as_wide
    ),
}

_true_products = gradient_confusion.example_products
_true_watch = naswot.watch


def _on_half(material: Material) -> dict[str, Tensor]:
    return _true_products(material.part(0, material.batch // 2))


def _all_on(material: Material, **options: Any) -> Any:
    seen = _true_watch(material, **options)
    seen.codes[:] = [~code | (torch.arange(code.shape[1]) < 1) for code in seen.codes]
    return seen


def _half_as_wide(material: Material) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                        nn.Linear(16, 3))
    return cerewrite.analyze(net, torch.ones(1, 5), estimator="analytic")


@pytest.mark.parametrize("name", list(DIAGNOSTICS))
def test_a_planted_fault_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [row for row in CASES if row[0] == name and row[1] not in ("residual_cnn", "tied")]
    if name in ("residual-kernel", "kernel-measures"):
        test_measures_of_a_relu_chain()
        FAULTS[name](monkeypatch)
        with pytest.raises(AssertionError):
            test_measures_of_a_relu_chain()
        return
    FAULTS[name](monkeypatch)
    assert any(max(differences(*row).values()) > 10 * TOLERANCE for row in checks)


def test_measures_of_a_relu_chain() -> None:
    def chain() -> nn.Module:
        return nn.Sequential(
            nn.Linear(5, 32, bias=False), nn.ReLU(), nn.Linear(32, 32, bias=False), nn.ReLU(),
            nn.Linear(32, 3, bias=False),
        )

    _, _, _, given = own(chain)
    ours = DIAGNOSTICS["kernel-measures"].read(given).figures
    # docs/theory.md, eq. 20: (5 - 8 f (1 - f)) / n with f = 2/3 and 1/3
    assert ours["leading-order"] == pytest.approx(2 * (5 - 16 / 9) / 32, rel=TOLERANCE)
    assert ours["nu"] == pytest.approx(exact_relu_nu([32, 32]), rel=0.03)
    twin = DIAGNOSTICS["residual-kernel"].read(given)
    assert twin.figures["twin's nu"] == pytest.approx(0.2136502, rel=TOLERANCE)
    assert twin.figures["nu"] == ours["nu"]
    assert twin.figures["nu over twin's"] == pytest.approx(ours["nu"] / 0.2136502, rel=TOLERANCE)
    assert list(twin.layers["twin's nu"].values())[0] == pytest.approx(3 / 32, rel=TOLERANCE)


def test_synflow_is_conserved_over_the_layers_of_a_chain() -> None:
    def chain() -> nn.Module:
        return nn.Sequential(*(nn.Linear(5, 5, bias=False) for _ in range(4)))

    model, _, _, given = own(chain)
    scores = synflow.saliencies(given)
    flow = torch.ones(5, dtype=torch.float64)
    for layer in model:  # type: ignore[attr-defined]
        flow = layer.weight.detach().abs() @ flow
    assert list(scores.values()) == pytest.approx([float(flow.sum())] * 4, rel=1e-9)


def test_a_convolution_s_map_is_that_of_a_patch() -> None:
    model, x, y, given = case("residual_cnn")
    seen = local_map.watch(given)
    values = local_map.layer_spectrum(seen, "2.branch.0")
    conv, norm = model[2].branch[0], model[2].branch[1]  # type: ignore[index, union-attr]
    with torch.no_grad():
        z = conv(model[1](model[0](x)))  # type: ignore[index]
        scale = norm.weight / (z.var((0, 2, 3), unbiased=False) + norm.eps).sqrt()
        out = norm(z)
        rows = conv.weight.flatten(1) * (scale * (out[0, :, 2, 2] > 0))[:, None]
        active = rows[rows.abs().amax(1) > 0]
    expected = torch.linalg.svdvals(active)
    assert torch.allclose(values, expected, rtol=TOLERANCE)
