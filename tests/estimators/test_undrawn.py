"""Weights that no sampled layer holds are drawn by who knows how, or refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import cerewrite
from cerewrite import Analysis
from cerewrite.errors import AnalysisError
from cerewrite.estimators.draws import make_subject
from cerewrite.frontend.tracing import trace


class Product(nn.Module):
    """A weight of its own that a contraction reads."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,oi->bo", x, self.own)


class Known(Product):
    """... which it can draw."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.own, 0.0, len(self.own) ** -0.5)


class Idle(Product):
    """... which it says it can draw."""

    def reset_parameters(self) -> None:
        return


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module] = nn.GRU) -> None:
        super().__init__()
        self.cells, self.head = kind(16, 16, batch_first=True), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x[:, None])[0][:, 0])


def network(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), middle, nn.ReLU(), nn.Linear(16, 3))


def analysis(model: nn.Module, estimator: str = "monte-carlo", draws: int = 400) -> Analysis:
    return cerewrite.analyze(model, torch.ones(2, 5), estimator=estimator, draws=draws)


@pytest.mark.parametrize("middle", [Product, Idle])
@pytest.mark.parametrize("estimator", ["monte-carlo", "jackknife"])
def test_a_module_that_cannot_be_drawn_is_named(middle: type[nn.Module], estimator: str) -> None:
    with pytest.raises(AnalysisError, match=r"'2\.own' of '2'") as caught:
        analysis(network(middle()), estimator, 8)
    assert "redraw" in caught.value.advice


@pytest.mark.parametrize(
    "middle",
    [
        Known,
        pytest.param(
            lambda: parametrizations.weight_norm(nn.Linear(16, 16, bias=False)),
            marks=pytest.mark.thorough,
            id="weight norm",
        ),
        pytest.param(
            lambda: parametrizations.orthogonal(nn.Linear(16, 16, bias=False)),
            marks=pytest.mark.thorough,
            id="orthogonal",
        ),
    ],
)
def test_what_draws_itself_scatters_as_a_layer_does(middle: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    found = analysis(network(middle())).log_variance
    plain = nn.Linear(16, 16, bias=False)
    nn.init.normal_(plain.weight, 0.0, 0.25)
    layer = analysis(network(plain)).log_variance
    assert found.stderr is not None and layer.stderr is not None
    assert 4 * layer.stderr < layer.value
    assert found.value > 0.5 * layer.value


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_layers_are_drawn_in_every_draw(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = network(Recurrent(kind)), torch.ones(2, 5)
    subject = make_subject(trace(model, x), model, x)
    seen = []
    for index in (0, 1, 0):
        subject.redraw(index)
        seen.append(subject.model.get_parameter("2.cells.weight_hh_l0").detach().clone())
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])
    assert "2.cells.weight_hh_l0" in subject.scales
    assert any(
        "reset_parameters: 2.cells)" in line for line in analysis(model, draws=8).assumptions
    )


def test_the_jackknife_refuses_units_that_it_cannot_gate() -> None:
    with pytest.raises(AnalysisError, match=r"cells\.weight_ih_l0.*pass no gate"):
        analysis(network(Recurrent()), "jackknife", 4)


def test_a_users_initialiser_goes_before_everything() -> None:
    def redraw(model: nn.Module, generator: torch.Generator) -> None:
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)

    x = torch.ones(2, 5)
    found = cerewrite.analyze(
        network(Product()), x, estimator="monte-carlo", draws=16, redraw=redraw
    )
    assert found.nu.value > 0


def test_embeddings_are_drawn_and_their_padding_stays_zero() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(7, 16, padding_idx=0)
    model = nn.Sequential(table, nn.Flatten(), nn.Linear(48, 2, bias=False))
    before = table.weight.detach().clone()
    ids = torch.tensor([[1, 2, 3]])
    free = cerewrite.analyze(model, ids, estimator="monte-carlo", draws=200).nu.value
    table.weight.requires_grad_(False)
    frozen = cerewrite.analyze(model, ids, estimator="monte-carlo", draws=200).nu.value
    assert torch.equal(table.weight, before)
    assert abs(frozen) < 1e-9 < free  # K is the frozen rows' square


def test_a_product_by_a_parameter_is_a_layer() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.v = (nn.Parameter(torch.randn(5, 16)), nn.Parameter(torch.randn(16, 16)))
            self.b, self.head = nn.Parameter(torch.zeros(16)), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.addmm(self.b, x, self.w).relu()
            return self.head((x @ self.v.T).relu())

    chain = nn.Sequential(
        nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    x = torch.ones(2, 5)
    found, same = (
        cerewrite.analyze(model, x, gain="he", estimator="analytic") for model in (Written(), chain)
    )
    assert [layer.width for layer in found.layers] == [16, 16, 3]
    assert found.nu.value == pytest.approx(same.nu.value, rel=1e-6)
    measured = cerewrite.analyze(Written(), x, gain="he", estimator="monte-carlo", draws=300)
    assert measured.nu.stderr is not None and 4 * measured.nu.stderr < 0.6 * same.nu.value
    assert abs(measured.nu.value - same.nu.value) < 4 * measured.nu.stderr
