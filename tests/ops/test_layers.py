from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import cerewrite
from cerewrite.errors import PlanError, RewriteError
from cerewrite.ir import RegionLayer
from cerewrite.nn import BlockDiagonalLinear
from cerewrite.ops import resizable_module, sampled_of, splittable_layer

linear, conv = splittable_layer("linear"), splittable_layer("conv")
depthwise = resizable_module("depthwise_conv")
ROLES = [("entry", -1, 0), ("interior", 0, 1), ("exit", 1, -1)]


def part(op: str, role: str, source: int, target: int, sizes: tuple[int, ...]) -> RegionLayer:
    n_in, n_out, kernel = sizes
    return RegionLayer(
        "x", op, role, (source,) * (source >= 0), target, n_in, n_out, kernel, 1, True
    )  # type: ignore[arg-type]


def fill(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("inner", [1, 3])
@pytest.mark.parametrize(("role", "source", "target"), ROLES)
def test_linear_members_make_up_the_split_layer(
    role: str, source: int, target: int, inner: int
) -> None:
    kernel = 1 if role == "entry" else inner
    spec = part("linear", role, source, target, (8, 8, kernel))
    old = nn.Linear(8 * kernel, 8)
    new = fill(linear.split(old, spec, 3, (4, 2)))
    assert isinstance(new, BlockDiagonalLinear) == (role == "interior")
    members = [linear.member(new, spec, j, 3, (4, 2)) for j in range(3)]
    x = torch.randn(5, new.in_features)
    chunks = [x] * 3 if role == "entry" else list(x.chunk(3, -1))
    outs = [member(chunk) for member, chunk in zip(members, chunks, strict=True)]
    whole = sum(outs) if role == "exit" else torch.cat(outs, -1)
    torch.testing.assert_close(new(x), whole)
    assert all(type(member) is nn.Linear for member in members)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("role", "source", "target"), ROLES)
def test_conv_members_make_up_the_split_layer(
    role: str, source: int, target: int, dimensions: int
) -> None:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    old = kind(8, 8, 3, stride=2, padding=2, dilation=2, padding_mode="reflect", groups=2)
    spec = part("conv", role, source, target, (8, 8, 3**dimensions))
    new = fill(conv.split(old, spec, 3, (4, 2)))
    assert new.groups == (3 if role == "interior" else 1)
    assert (new.stride, new.dilation, new.padding_mode) == (old.stride, old.dilation, "reflect")
    members = [conv.member(new, spec, j, 3, (4, 2)) for j in range(3)]
    x = torch.randn(2, new.in_channels, *(7,) * dimensions)
    chunks = [x] * 3 if role == "entry" else list(x.chunk(3, 1))
    outs = [member(chunk) for member, chunk in zip(members, chunks, strict=True)]
    whole = sum(outs) if role == "exit" else torch.cat(outs, 1)
    torch.testing.assert_close(new(x), whole, rtol=1e-4, atol=1e-4)


def test_depthwise_members() -> None:
    old = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    new = fill(depthwise.resize(old, 3, 4))
    assert new.groups == new.in_channels == new.out_channels == 12
    x = torch.randn(2, 12, 5, 5)
    outs = [depthwise.member(new, j, 3)(c) for j, c in enumerate(x.chunk(3, 1))]
    torch.testing.assert_close(new(x), torch.cat(outs, 1))
    with pytest.raises(RewriteError, match="groups"):
        depthwise.resize(nn.Conv2d(6, 6, 3), 3, 4)


def test_what_is_kept_and_what_is_left_undrawn() -> None:
    old = nn.Linear(4, 4, bias=False, dtype=torch.float64).eval().requires_grad_(False)
    state = torch.get_rng_state()
    new = linear.split(old, part("linear", "interior", 0, 0, (4, 4, 1)), 2, (3,))
    assert torch.equal(state, torch.get_rng_state())
    assert not new.training and not new.weight.requires_grad
    assert new.weight.dtype == torch.float64 and new.bias is None
    assert new.weight.isnan().all()
    meta = linear.split(
        nn.Linear(4, 4, device="meta"), part("linear", "exit", 0, -1, (4, 4, 1)), 2, (3,)
    )
    assert meta.weight.is_meta


def fan_in(module: nn.Module) -> int:
    rule = sampled_of(module)
    assert rule is not None
    return rule.fan_in(module)


def test_fan_in_is_what_torch_draws_with() -> None:
    stock = [
        nn.Linear(5, 7),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv1d(6, 6, 5, groups=6),
        nn.Conv3d(2, 4, (1, 2, 3)),
    ]
    for layer in stock:
        assert fan_in(layer) == nn.init._calculate_fan_in_and_fan_out(layer.weight)[0]
    assert fan_in(BlockDiagonalLinear(6, 4, 2)) == 3
    layer = nn.ConvTranspose1d(4, 6, 3, groups=2)
    nn.init.ones_(layer.weight)
    inner = layer(torch.ones(1, 4, 9))[0, :, 4] - layer.bias
    assert inner.tolist() == pytest.approx([fan_in(layer)] * 6)


class Scaled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


class Renamed(nn.Linear):
    """Changes nothing about the computation."""


def test_a_forward_that_does_more_than_the_product_keeps_the_layer() -> None:
    """What a forward of the user's own does is for the trace to say."""
    net = nn.Sequential(*(f for _ in range(4) for f in (Scaled(16, 16), nn.ReLU())))
    with pytest.raises(PlanError, match="custom-module"):
        cerewrite.convert(net, torch.ones(2, 16), estimator="analytic")


def test_only_plain_layers_are_split() -> None:
    spec = part("linear", "interior", 0, 0, (4, 4, 1))
    refused = [weight_norm(nn.Linear(4, 4)), nn.Bilinear(4, 4, 4), nn.Conv1d(4, 4, 1)]
    for module in refused:
        with pytest.raises(RewriteError, match="cannot be split"):
            linear.split(module, spec, 2, (2,))
    assert isinstance(linear.split(Renamed(4, 4), spec, 2, (2,)), BlockDiagonalLinear)
    with pytest.raises(RewriteError, match="5 input features, the plan says 4"):
        linear.split(nn.Linear(5, 4), spec, 2, (2,))
