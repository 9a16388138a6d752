"""Which channels make logits of attention, in whatever way it is written."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cerewrite.estimators.base import Assumption
from cerewrite.estimators.draws import Gates, find_units, logit_rows
from cerewrite.estimators.draws.influence import influences, kernel_of
from cerewrite.estimators.draws.places import Units
from cerewrite.estimators.monte_carlo import subject_of
from cerewrite.frontend.tracing import trace

WIDTH, HEADS = 8, 2


class Attends(nn.Module):
    """Attention as one operator or two products, from three projections or one."""

    def __init__(self, *, fused: bool, by_hand: str, interleaved: bool = False) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.by_hand, self.interleaved = by_hand, interleaved
        if fused:
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        else:
            self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).tanh()
        if not hasattr(self, "qkv"):
            parts = [
                f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
            ]
        elif self.interleaved:  # each head's queries, keys and values side by side
            parts = list(self.qkv(x).unflatten(-1, (HEADS, -1)).transpose(1, 2).chunk(3, -1))
        else:
            parts = list(self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0))
        q, k, v = parts
        if self.by_hand == "matmul":
            weights = F.dropout((q @ k.transpose(-1, -2) / 2).softmax(-1), 0.1, self.training)
            mixed = weights @ v
        elif self.by_hand == "einsum":
            weights = F.softmax(torch.einsum("bhqc,bhkc->bhqk", q, k), dim=-1)
            mixed = torch.einsum("bhqk,bhkc->bhqc", weights, v)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))[:, 0]
        return out.softmax(-1)  # no attention's


@pytest.mark.parametrize("by_hand", ["", "matmul", "einsum"])
@pytest.mark.parametrize(("fused", "interleaved"), [(False, False), (True, False), (True, True)])
def test_logits_are_found_however_attention_is_written(
    by_hand: str, fused: bool, interleaved: bool
) -> None:
    torch.manual_seed(0)
    net = Attends(fused=fused, by_hand=by_hand, interleaved=interleaved)
    x = torch.randn(2, 5, 3)
    traced = trace(net, x)
    subject = subject_of(traced, net, x, Assumption())
    found = {name: rows.tolist() for name, rows in logit_rows(traced, subject).items()}
    if not fused:
        assert found == dict.fromkeys("qk", [True] * WIDTH)
        return
    parts = [True, True, False]
    size = WIDTH // HEADS
    wanted = [p for _ in range(HEADS) for p in parts for _ in range(size)]
    plain = [p for p in parts for _ in range(WIDTH)]
    assert found == {"qkv": wanted if interleaved else plain}


def term(net: Attends, x: Tensor) -> tuple[float, Units]:
    """Half the squares of what logits' weights do to log K, on the weights as they are."""
    traced = trace(net, x)
    subject = subject_of(traced, net, x, Assumption(gain=1.0))
    units = find_units(traced, subject.model, logit_rows(traced, subject))
    gates = Gates(units, net.out.weight)
    with gates.on(subject.model):
        kernel = kernel_of(subject, subject.gradients(create_graph=True))
        gates.influences(kernel.log())
    return sum(gates.across.values()), units


def test_one_projection_has_the_term_of_three() -> None:
    torch.manual_seed(0)
    three, one = (Attends(fused=fused, by_hand="matmul").double() for fused in (False, True))
    one.load_state_dict(one.state_dict() | _joined(three))
    for name in ("enter", "out"):
        getattr(one, name).load_state_dict(getattr(three, name).state_dict())
    x = 3 * torch.randn(1, 5, 3, dtype=torch.float64)
    (apart, units), (fused, joined) = term(three, x), term(one, x)
    assert len(units.across) == 2 and not units.logits
    assert joined.logits["qkv"].sum() == 2 * WIDTH
    assert apart > 1e-4
    assert fused == pytest.approx(apart, rel=1e-6)


def _joined(net: Attends) -> dict[str, Tensor]:
    layers = (net.q, net.k, net.v)
    return {
        "qkv.weight": torch.cat([layer.weight for layer in layers]),
        "qkv.bias": torch.cat([layer.bias for layer in layers]),
    }


def test_only_logits_are_drawn_anew() -> None:
    torch.manual_seed(0)
    net, x = Attends(fused=True, by_hand=""), 3 * torch.randn(1, 5, 3)
    traced = trace(net, x)
    subject = subject_of(traced, net, x, Assumption(gain=4.0))
    subject.redraw(0)
    units = find_units(traced, subject.model, logit_rows(traced, subject))
    gates = Gates(units, net.out.weight)
    before = subject.model.qkv.weight.detach().clone()
    found = influences(subject, gates, 0)
    changed = (subject.model.qkv.weight != before).any(1)
    assert changed.tolist() == units.logits["qkv"].tolist()
    assert found[units.across["qkv"]].cleared > 0


def test_networks_without_attention_have_none() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1), nn.Linear(4, 2)), torch.randn(2, 3)
    traced = trace(net, x)
    assert logit_rows(traced, subject_of(traced, net, x, Assumption())) == {}
