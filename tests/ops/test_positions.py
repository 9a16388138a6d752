"""Tokens and embeddings of positions: parameters along the channels, with more axes than one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.frontend.tracing import trace
from cerewrite.nn.parameter_module import ParameterModule
from cerewrite.ops.free import FreeParameter


class Tokens(nn.Module):
    """A small transformer without attention: a token in front, positions added."""

    def __init__(self, expand: tuple[int, ...] = (-1, -1), fixed: bool = False) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 5, 16))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
            for _ in range(2)
        )
        self.expand, self.fixed = expand, fixed

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = torch.cat([self.token.expand(x.shape[0], *self.expand), x], dim=1)
        x = x + (self.positions.cumsum(-1) if self.fixed else self.positions)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x[:, 0])


def test_resized_and_cut() -> None:
    positions = nn.Parameter(torch.randn(1, 5, 4))
    wide = FreeParameter().resize(ParameterModule(positions), 3, 2)
    assert isinstance(wide, ParameterModule) and wide.value.shape == (1, 5, 6)
    assert torch.equal(wide.value[..., :4], positions)
    assert torch.equal(wide.value[..., 4:], positions[..., :2])
    member = FreeParameter().member(wide, 1, 3)
    assert isinstance(member, ParameterModule)
    assert torch.equal(member.value, wide.value[..., 2:4])
    images = FreeParameter().resize(ParameterModule(nn.Parameter(torch.zeros(1, 4, 2, 2))), 2, 3)
    assert isinstance(images, ParameterModule) and images.value.shape == (1, 6, 2, 2)


def test_a_transformer_stream_is_split_with_its_tokens_and_positions() -> None:
    torch.manual_seed(0)
    net, x = Tokens(), torch.randn(2, 4, 6)
    result = cerewrite.convert(
        net, (x,), budget="params", scope="network", min_width=2, estimator="analytic"
    )
    assert result.verification.passed
    (split,) = result.plan.splits
    assert split.multiplicity > 1
    width = split.multiplicity * split.widths[0]
    assert result.model.positions.shape == (1, 5, width)
    assert result.model.token.shape == (1, 1, width)
    assert sum(p.numel() for p in result.model.parameters()) == result.plan.planned.params


@pytest.mark.parametrize(
    ("net", "code"),
    [
        (Tokens(expand=(1, 16)), "concatenated-with-fixed"),
        (Tokens(fixed=True), "tied-to-fixed-width"),
    ],
)
def test_hard_coded_tokens_and_computed_positions_keep_the_width(net: nn.Module, code: str) -> None:
    traced = trace(net, torch.ones(2, 4, 6))
    stream = next(w for w in traced.widths if w.name == "embed")
    assert code in {pin.code for pin in stream.pins}


class Own(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.layer_norm(
            input, self.normalized_shape, self.weight, self.bias, self.eps
        )


class Other(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Eps(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, 0.1)


@pytest.mark.parametrize(("kind", "free"), [(Own, True), (Other, False), (Eps, False)])
def test_layer_norms_written_anew_are_layer_norms(kind: type[nn.LayerNorm], free: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), kind(16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    traced = trace(net, torch.ones(2, 6))
    codes = [pin.code for pin in traced.widths[0].pins]
    assert codes == ([] if free else ["custom-module"])
    if free:
        result = cerewrite.convert(
            net, (torch.randn(2, 6),), budget="params", min_width=2, estimator="analytic"
        )
        assert result.verification.passed and result.plan.splits


class Grid(nn.Module):
    """Positions on a map, made in ways that vision transformers make them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.embed, self.head = kind, nn.Conv2d(3, 16, 2, 2), nn.Linear(16, 3)
        shapes = {"grid": (1, 6, 6, 16), "first": (16, 4, 4), "cut": (1, 40, 16)}
        self.positions = nn.Parameter(torch.randn(shapes.get(kind, (1, 36, 16))))
        self.rows = nn.Parameter(torch.randn(1, 4, 16))
        self.columns = nn.Parameter(torch.randn(1, 4, 16))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
            for _ in range(2)
        )

    def made(self) -> Tensor:
        """``[1, 16, channels]``"""
        if self.kind == "first":
            return self.positions.flatten(1).t().unsqueeze(0)
        if self.kind == "cut":
            return self.positions[:, 3:19]
        if self.kind == "sum":
            return (self.rows.unsqueeze(2) + self.columns.unsqueeze(1)).flatten(1, 2)
        if self.kind == "numbers":
            return self.positions.reshape(1, 6, 6, 16)[:, :4, :4].reshape(1, 16, 16)
        if self.kind == "mixed":
            return self.positions[:, :16] @ self.positions[:, :16].transpose(1, 2)
        grid = self.positions if self.kind == "grid" else self.positions.view(1, 6, 6, -1)
        maps = nn.functional.interpolate(grid.permute(0, 3, 1, 2), (4, 4), mode="bilinear")
        return maps.flatten(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.made()
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean(1))


@pytest.mark.parametrize("kind", ["grid", "first", "cut", "sum", "resized"])
def test_positions_are_followed_back_to_their_parameters(kind: str) -> None:
    torch.manual_seed(0)
    net, x = Grid(kind), torch.randn(2, 3, 8, 8)
    result = cerewrite.convert(net, (x,), scope="network", estimator="analytic", members=2)
    assert result.verification.passed, result.verification.failures
    (split,) = result.plan.splits
    assert split.multiplicity == 2
    wide = 2 * split.widths[0]
    used = ("rows", "columns") if kind == "sum" else ("positions",)
    for name in used:
        old, new = net.get_parameter(name), result.model.get_parameter(name)
        axis = 0 if kind == "first" else -1
        assert new.shape[axis] == wide and new.numel() * old.shape[axis] == old.numel() * wide


@pytest.mark.parametrize("kind", ["numbers", "mixed"])
def test_positions_that_name_or_mix_channels_keep_them(kind: str) -> None:
    net, x = Grid(kind), torch.randn(2, 3, 8, 8)
    found = cerewrite.analyze(net, (x,), scope="network", estimator="analytic")
    assert not found.regions
    assert "tied-to-fixed-width" in {rejection.code for rejection in found.rejections}
