"""What no estimator may answer with a number: a typed error, or a refusal of the layer."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.estimators import ESTIMATORS, Assumption, Corrections
from cerewrite.frontend.tracing import trace

MEASURING = ("monte-carlo", "jackknife")
ON_INPUTS = (*MEASURING, "spatial")
ALL = (*ON_INPUTS, "analytic", "exact-relu")


class Net(nn.Module):
    """A small convolutional network with one fault."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fault = fault
        self.a = nn.Conv2d(3, 8, 3)
        self.side = nn.Conv2d(8, 8, 1)
        self.b = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        y = self.a(x).relu()
        match self.fault:
            case "no tensor":
                return {"count": 3}
            case "nothing found":
                return {"boxes": y.mean((2, 3))[:0]}
            case "detached":
                y = y + self.side(y).detach()
            case "unused":
                self.side(y)
            case "infinite":
                y = (self.side(y) * 1e30).exp()
            case "nan":
                y = self.side(y) - torch.inf
                y = y - y
        return self.b(y.mean((2, 3)))


def maps() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def found(name: str, model: nn.Module, x: Any = None, **options: Any) -> Corrections:
    x = maps() if x is None else x
    if name in MEASURING:
        options = {"draws": 8 if name == "monte-carlo" else 2, **options}
    return ESTIMATORS[name].estimate(trace(model, x), model, x, Assumption(**options))


@pytest.mark.parametrize("name", ALL)
def test_no_parameters(name: str) -> None:
    with pytest.raises(AnalysisError):
        found(name, nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


@pytest.mark.parametrize("name", [*ON_INPUTS, "analytic"])
@pytest.mark.parametrize(
    ("readout", "why"), [("logits", "logits"), (":9", "2 channels"), (":x", "x")]
)
def test_a_readout_that_does_not_exist(name: str, readout: str, why: str) -> None:
    with pytest.raises(AnalysisError, match=why):
        found(name, Net(), readout=readout)


@pytest.mark.parametrize("name", ALL)
def test_outputs_that_are_no_tensors(name: str) -> None:
    with pytest.raises(AnalysisError):
        found(name, Net("no tensor"))


@pytest.mark.parametrize("name", MEASURING)
def test_an_output_that_is_empty(name: str) -> None:
    with pytest.raises(AnalysisError, match="empty"):
        found(name, Net("nothing found"))


@pytest.mark.parametrize("name", [*ON_INPUTS, "analytic"])
@pytest.mark.parametrize("fault", ["infinite", "nan"])
@pytest.mark.filterwarnings("ignore:overflow|invalid value")
def test_activations_that_are_not_finite(name: str, fault: str) -> None:
    with pytest.raises(AnalysisError):
        found(name, Net(fault))


@pytest.mark.parametrize("name", ON_INPUTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite(name: str, value: float) -> None:
    with pytest.raises(AnalysisError, match=r"finite|output is"):
        found(name, Net(), maps() + value)


@pytest.mark.parametrize("name", ON_INPUTS)
def test_a_layer_that_nothing_reads_is_refused(name: str) -> None:
    layers = {at.layer: at for at in found(name, Net("unused")).layers}
    assert layers["side"].kappa == 0 and layers["side"].note.startswith("refused")
    assert not layers["a"].note.startswith("refused")
    assert layers["a"].kappa > 0


@pytest.mark.parametrize("name", MEASURING)
def test_a_layer_that_never_gets_a_gradient_is_refused(name: str) -> None:
    layers = {at.layer: at for at in found(name, Net("detached")).layers}
    assert "never gets a gradient" in layers["side"].note and layers["side"].kappa == 0
    assert layers["a"].kappa > 0


def test_a_detached_branch_is_seen_by_what_reads_it() -> None:
    layers = {at.layer: at for at in found("spatial", Net("detached")).layers}
    without = {at.layer: at for at in found("spatial", Net()).layers}
    assert layers["side"].kappa > 0
    assert layers["a"].kappa != pytest.approx(without["a"].kappa, rel=0.02)


@pytest.mark.parametrize("name", MEASURING)
@pytest.mark.parametrize("draws", [-1, 0, 1])
def test_too_few_draws(name: str, draws: int) -> None:
    with pytest.raises(AnalysisError, match="too few"):
        found(name, Net(), draws=draws)


@pytest.mark.parametrize("name", MEASURING)
def test_integer_inputs_are_looked_up(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    layers = found(name, model, torch.tensor([[1, 2], [3, 4]])).layers
    assert layers[0].kappa > 0


def test_integer_inputs_have_no_second_moments() -> None:
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 2))
    with pytest.raises(AnalysisError, match=r"one batch of maps|floating-point"):
        found("spatial", model, torch.tensor([[1, 2], [3, 4]]))
