from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from cerewrite.errors import OutputError, UsageError
from cerewrite.reporter.curves import Curve, curves_chart
from cerewrite.training import KernelMonitor, gram
from tests.rewriting.cases import CASES, parameters_of, same_state


def direct(model: nn.Module, probes: Tensor, seed: int) -> Tensor:
    """The same kernel through forward Jacobians of all outputs."""
    vector = torch.randn(
        model(probes).flatten(1).shape[1],
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )
    vector = vector / vector.norm()

    def read(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(model, parameters, (probes,)).flatten(1) @ vector

    parameters = {name: value.detach() for name, value in model.named_parameters()}
    rows = torch.cat([j.flatten(1) for j in jacrev(read)(parameters).values()], 1)
    return rows @ rows.T


@pytest.mark.parametrize("name", ["mlp_layer_norm", "tokens", "conv3d"])
def test_gram_is_the_jacobians_product(name: str) -> None:
    case = CASES[name]
    model = case.model().double().eval()
    probes = torch.randn(3, *case.shape[1:], dtype=torch.float64)
    kernel = gram(model, (probes,), seed=4)
    assert torch.allclose(kernel, direct(model, probes, 4), rtol=1e-9)
    assert not torch.allclose(kernel, gram(model, (probes,), seed=5))
    assert torch.linalg.eigvalsh(kernel).min() > -1e-9 * kernel.trace()


def test_batch_norms_that_train_use_the_probes() -> None:
    case = CASES["mlp_batch_norm"]
    model = case.model().double()
    probes = torch.randn(4, 5, dtype=torch.float64)
    training = gram(model, (probes,))
    assert not torch.allclose(training, gram(model.eval(), (probes,)))
    fresh = case.model().double()
    for norm in (fresh[1], fresh[4]):
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = None
    assert torch.allclose(training, direct(fresh, probes, 0), rtol=1e-9)


@pytest.mark.parametrize("name", ["mlp_batch_norm", "cnn", "conv_flatten_linear"])
def test_a_look_leaves_no_trace(name: str) -> None:
    case = CASES[name]
    model = case.model()
    model[0].eval()
    flags = [module.training for module in model.modules()]
    model(*case.inputs()).sum().backward()
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    before, random = parameters_of(model), torch.get_rng_state()
    monitor = KernelMonitor(model, *case.inputs(), every=1)
    assert monitor.step(torch.tensor(2.0)).drift == 0
    assert same_state(parameters_of(model), before)
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_monitored_training_is_the_training() -> None:
    def train(watch: bool) -> dict[str, Tensor]:
        case = CASES["conv_flatten_linear"]
        model = case.model()
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        monitor = KernelMonitor(model, *case.inputs(), every=2) if watch else None
        for seed in range(6):
            optimiser.zero_grad()
            loss = model(*case.inputs(seed)).square().mean()
            loss.backward()
            optimiser.step()
            if monitor is not None:
                monitor.step(loss)
        return parameters_of(model)

    assert same_state(train(True), train(False))


def test_readings() -> None:
    """For ``f = (w x) / sqrt(2)`` with a doubled weight the kernel of the other doubles."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model[0].requires_grad_(False)
    monitor = KernelMonitor(model, torch.randn(3, 2), every=2)
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert monitor.step() is None
    reading = monitor.step(torch.tensor(1.5, requires_grad=True))
    assert (reading.step, reading.loss, reading.gradient) == (2, 1.5, None)
    assert reading.drift == pytest.approx(3, rel=1e-5)
    assert reading.trace == pytest.approx(4 * monitor.readings[0].trace, rel=1e-5)
    model[1].weight.grad = torch.tensor([[3.0, 4.0]])
    monitor.step()
    assert monitor.step(math.nan).gradient == pytest.approx(5)
    assert math.isnan(monitor.readings[-1].loss)
    assert len(monitor.readings) == 3


def test_a_narrow_network_drifts_more_than_a_wide_one() -> None:
    drifts = []
    for width in (8, 512):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))
        x = torch.randn(16, 4)
        monitor = KernelMonitor(model, x[:4], every=30)
        optimiser = torch.optim.SGD(model.parameters(), 0.2 * 8 / width)
        for _ in range(30):
            optimiser.zero_grad()
            (model(x)[:, 0] - x.sum(1)).square().mean().backward()
            optimiser.step()
            monitor.step()
        drifts.append(monitor.readings[-1].drift)
    assert drifts[0] > 3 * drifts[1] > 0


def test_files(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    monitor = KernelMonitor(model, torch.randn(3, 2), every=1)
    for loss in (1.0, math.inf, 0.5):
        monitor.step(loss)
    monitor.save(tmp_path / "run.json")
    monitor.save(tmp_path / "run.json")
    held = json.loads((tmp_path / "run.json").read_text())
    assert [item["loss"] for item in held] == [None, 1.0, "inf", 0.5]
    monitor.plot(tmp_path / "run.svg")
    root = ElementTree.parse(tmp_path / "run.svg").getroot()
    text = " ".join(root.itertext())
    assert root.tag.endswith("svg") and "kernel drift" in text and "loss (1 not finite)" in text
    with pytest.raises(OutputError):
        monitor.plot(tmp_path)


def test_curves_without_points() -> None:
    root = ElementTree.fromstring(curves_chart([Curve("a < b", ()), Curve("c", ((1, 2),))], "n"))
    assert "a < b" in " ".join(root.itertext())


@pytest.mark.parametrize(
    ("probes", "options", "reason"),
    [
        (torch.zeros(3, 5), {}, "does not take the probes"),
        (torch.zeros(1, 2), {}, "hold 1 examples"),
        (torch.zeros(()), {}, "hold 0 examples"),
        ((), {}, "hold 0 examples"),
        (torch.zeros(3, 2), {"every": 0}, "every is 0"),
    ],
)
def test_unfit_probes_are_refused(probes: Any, options: dict[str, int], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        KernelMonitor(nn.Linear(2, 1), probes, **options)
    assert error.value.advice


def test_unfit_models_are_refused() -> None:
    x = torch.randn(3, 2)
    with pytest.raises(UsageError, match="no parameter that is trained"):
        KernelMonitor(nn.Linear(2, 1).requires_grad_(False), x)
    with pytest.raises(UsageError, match="no parameter that is trained"):
        KernelMonitor(nn.Linear(2, 1, device="meta"), x)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    with pytest.raises(UsageError, match="nothing to drift from"):
        KernelMonitor(model, x)
