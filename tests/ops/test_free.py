from __future__ import annotations

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite.analysis import find_regions
from cerewrite.api import saving
from cerewrite.errors import RewriteError
from cerewrite.frontend.tracing import trace
from cerewrite.nn import ChannelLayerNorm, ParameterModule
from cerewrite.ops.free import FreeParameter
from tests.models import ScaledNet

X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=[False, True], ids=["3d", "viewed"])
def converted(
    request: pytest.FixtureRequest,
) -> tuple[nn.Module, cerewrite.api.conversion.Conversion]:
    torch.manual_seed(0)
    net = ScaledNet(flat=request.param)
    return net, cerewrite.convert(
        net,
        X,
        scope="network",
        gain="he",
        estimator="analytic",
        budget="params=1.2x",
        fixed={"stem": "3x8"},
    )


@pytest.mark.thorough
def test_layer_scales_are_resized_with_their_stream(converted: tuple) -> None:
    net, result = converted
    split = result.plan.splits[0]
    size = split.multiplicity * split.widths[0]
    for old, new in zip(net.blocks, result.model.blocks, strict=True):
        assert type(new.scale) is nn.Parameter and new.scale.requires_grad
        assert new.scale.numel() == size and new.scale.dim() == old.scale.dim()
        assert torch.equal(new.scale.flatten(), old.scale.flatten()[:1].expand(size))
    assert isinstance(result.model.norm, ChannelLayerNorm)
    assert ("blocks.0.scale", "blocks.0.scale") in result.renamed
    assert result.verification.passed


def test_revert_brings_them_back_bit_for_bit(converted: tuple) -> None:
    net, result = converted
    new = cerewrite.apply(result.plan, net)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(1.0)
    back = cerewrite.revert(new)
    state = net.state_dict()
    assert list(back.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in back.state_dict().items())


def test_they_are_saved_and_loaded(converted: tuple, tmp_path) -> None:  # noqa: ANN001
    net, result = converted
    saving.save(tmp_path / "out", result.model, result.plan, example_inputs=(X,))
    loaded = cerewrite.load(tmp_path / "out", ScaledNet(flat=net.blocks[0].flat))
    with torch.no_grad():
        assert torch.equal(loaded.eval()(X), result.model.eval()(X))


def test_membership_fails_if_members_exchange_channels(converted: tuple) -> None:
    """The planted fault: a member reads its neighbour's channels in front of its layers."""
    net, result = converted
    fault = cerewrite.apply(result.plan, net)
    split = result.plan.splits[0]
    assert split.multiplicity > 1

    def swapped(x: torch.Tensor) -> torch.Tensor:
        return x.roll(split.widths[0], -1)

    fault.blocks[0].norm.register_forward_hook(lambda module, args, out: swapped(out))
    checks = cerewrite.verify(net, fault, result.plan, X).checks
    assert not next(check.passed for check in checks if check.name == "membership")


def test_a_scale_that_two_operators_read_keeps_its_width() -> None:
    class Shared(ScaledNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.stem(x)) * self.blocks[0].scale
            return self.head(self.blocks(y).mean((2, 3)))

    found, rejections = find_regions(trace(Shared(), X), "network")
    assert not any("stem" in region.classes for region in found)
    assert "tied-to-fixed-width" in {r.code for r in rejections}


def test_values_that_differ_keep_their_mean_square_and_members_are_slices() -> None:
    old = ParameterModule(nn.Parameter(torch.tensor([1.0, 2.0, 3.0])[:, None], requires_grad=False))
    new = FreeParameter().resize(old, 2, 2)
    assert isinstance(new, ParameterModule)
    squares = new.value.reshape(2, 2).square().mean(1)
    torch.testing.assert_close(squares, torch.full((2,), 14 / 3))
    assert len(set(new.value.flatten().tolist())) > 1 and not new.value.requires_grad
    new.value.data.copy_(torch.arange(4.0)[:, None])
    member = FreeParameter().member(new, 1, 2)
    assert isinstance(member, ParameterModule) and member.value.tolist() == [[2.0], [3.0]]


def test_what_has_no_single_channel_axis_is_refused() -> None:
    with pytest.raises(RewriteError, match="no single channel axis"):
        FreeParameter().resize(ParameterModule(nn.Parameter(torch.ones(2, 2, 2))), 2, 2)
    with pytest.raises(RewriteError, match="no free parameter"):
        FreeParameter().resize(nn.Linear(2, 2), 2, 2)
