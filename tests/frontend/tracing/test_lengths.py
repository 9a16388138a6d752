"""Views that name sizes: numbers of the model's own, and sizes read off a tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.frontend.tracing import trace
from cerewrite.frontend.tracing.recorder_rung import recorded_ops
from cerewrite.frontend.tracing.widths import build_widths


class Viewing(nn.Module):
    """Linears with a view between them; ``side`` is as wide as the first, and no part of it."""

    def __init__(self, view: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 8)
        self.third, self.last = nn.Linear(8, 8), nn.Linear(8, 2)
        self.side, self.view = nn.Linear(12, 8), view

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        y = self.view(y, self.side(x).softmax(-1))
        return self.last(self.third(self.second(y).relu()).relu())


def sized(y: Tensor, side: Tensor) -> Tensor:
    batch, tokens, width = y.shape
    return y.view(batch * tokens, width).reshape(batch, tokens, y.size(-1))


def pins(view: Callable[[Tensor, Tensor], Tensor]) -> list[str]:
    traced = trace(Viewing(view), torch.ones(2, 5, 12))
    return [pin.code for pin in next(w for w in traced.widths if w.name == "first").pins]


@pytest.mark.parametrize(
    ("view", "codes"),
    [
        (sized, []),
        (lambda y, s: sized(y, s).flip(-1), []),  # kept, but not by the view
        (lambda y, s: y.view(2, 5, 8), ["fixed-view"]),
        (lambda y, s: y.view(2, -1, 4 * y.shape[2] // 4), []),
        (lambda y, s: y.view(2, -1, y.shape[2] * y.shape[2] // 8), ["fixed-view"]),
        (lambda y, s: y + s.reshape(2, 5, 2, 4).sum((2, 3), keepdim=True).view(2, 5, 1), []),
        (lambda y, s: y + s.transpose(1, 2).reshape(2, 5, y.shape[2]).mean(), ["fixed-view"]),
        (lambda y, s: y + s.transpose(1, 2).reshape(2, 5, 8).mean(), []),
    ],
)
def test_sizes_read_off_a_tensor_are_told_from_numbers(
    view: Callable[[Tensor, Tensor], Tensor], codes: list[str]
) -> None:
    assert [code for code in pins(view) if code == "fixed-view"] == codes


def test_a_view_by_its_own_width_is_converted() -> None:
    torch.manual_seed(0)
    net = Viewing(lambda y, s: sized(y, s))
    result = cerewrite.convert(
        net, (torch.randn(2, 5, 12),), min_width=1, estimator="analytic", widths="free"
    )
    assert result.verification.passed
    (split,) = result.plan.splits
    assert result.analysis.frontend == "recorder" and split.multiplicity > 1


def test_a_view_of_another_value_keeps_the_width_that_it_names() -> None:
    """Else the ensemble, 9 wide where the model was 8, would raise in its forward."""
    torch.manual_seed(0)

    def view(y: Tensor, side: Tensor) -> Tensor:
        return y + side.transpose(1, 2).reshape(2, 5, y.shape[2]).mean()

    traced = trace(Viewing(view), torch.ones(2, 5, 12))
    free = {w.name for w in traced.widths if not w.pins}
    assert "first" not in free and {"second", "third"} <= free


def test_a_module_with_two_names_comes_back_from_the_recorder() -> None:
    """Found in CoaT: parameters of such a module were stand-ins afterwards."""

    class Aliased(Viewing):
        def __init__(self) -> None:
            super().__init__(sized)
            self.again = nn.ModuleList([self.second])

    net = Aliased()
    before = list(net.parameters())
    recorded_ops(net.eval(), (torch.ones(2, 5, 12),), {})
    assert all(new is old for new, old in zip(net.parameters(), before, strict=True))


class Rearranged(nn.Module):
    """Attention with a skip, as vit-pytorch writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = 4, nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        from einops import rearrange

        parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.heads) for part in parts)
        y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return x + self.out(rearrange(y, "b h n d -> b n (h d)"))


def test_einops_views_are_those_of_the_module_that_asks_for_them() -> None:
    einops = pytest.importorskip("einops.einops", reason="einops is not installed")
    net, x = nn.Sequential(nn.Linear(5, 32), *(Rearranged() for _ in range(2))), torch.ones(2, 3, 5)
    net(x)  # einops keeps the views of this run
    kept = einops._reconstruct_from_shape
    traced = trace(net, x)
    heads = {width.writers[0]: width for width in traced.widths}
    for block in ("1", "2"):
        found = heads[f"{block}.qkv"]
        assert (found.size, found.step, found.pins) == (32, 8, ())
        assert [module.name for module in found.modules] == [f"{block}.heads"]
    assert einops._reconstruct_from_shape is kept
    assert torch.equal(net(x), net(x))


class Checked(nn.Module):
    """A block that compares its input with a number of its own, as diffusers and PVT do."""

    def __init__(self, rooted: bool) -> None:
        super().__init__()
        self.channels, self.rooted = 16, rooted
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.channels:
            raise ValueError("another width")
        y = x * self.channels**-0.5 if self.rooted else x
        return self.down(self.up(y.view(-1, x.shape[-1])).relu()).relu()


def test_a_width_that_a_forward_compares_with_a_number_takes_it_along() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), Checked(rooted=False), nn.Linear(16, 3))
    x = torch.randn(2, 5)
    found = cerewrite.analyze(net, x, scope="network", estimator="analytic", gain="he")
    (region,) = (estimate.region for estimate in found.regions)
    plan = cerewrite.plan(found, fixed={region.name: "3x8"}, allow="all")
    new = cerewrite.apply(plan, net)
    assert cerewrite.verify(net, new, plan, x).passed
    assert new[2].channels == 24
    cerewrite.revert(new)
    assert new[2].channels == 16


def test_a_width_that_is_compared_with_a_number_of_a_formula_is_kept() -> None:
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), Checked(rooted=True), nn.Linear(16, 3))
    ops = recorded_ops(net.eval(), (torch.randn(2, 5),), {})
    traced = build_widths(ops, net, frontend="recorder", batch=2, fingerprint="")
    pins = {width.name: [pin.code for pin in width.pins] for width in traced.widths}
    assert pins["0"] == ["compared"] and pins["2.up"] == []
