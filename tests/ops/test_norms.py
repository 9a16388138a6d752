from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import RewriteError
from cerewrite.frontend.tracing import trace
from cerewrite.nn import MemberLayerNorm, MemberRMSNorm
from cerewrite.nn.member_forward import MemberForward
from cerewrite.ops import resizable_module
from cerewrite.ops.called_norm import CalledNorm, CalledRMSNorm
from cerewrite.ops.member_forward import HandMapNorm, HandNorm

resize_batch_norm = resizable_module("batch_norm").resize
resize_group_norm = resizable_module("group_norm").resize
resize_layer_norm = resizable_module("layer_norm").resize
CASES = [
    (nn.BatchNorm1d(8), "batch_norm", 1, (5,)),
    (nn.BatchNorm2d(8, affine=False), "batch_norm", 1, (3, 3)),
    (nn.BatchNorm3d(8, track_running_stats=False), "batch_norm", 1, (2, 2, 2)),
    (nn.InstanceNorm2d(8, affine=True), "batch_norm", 1, (3, 3)),
    (nn.GroupNorm(4, 8), "group_norm", 1, (3, 3)),
    (nn.GroupNorm(1, 8, affine=False), "group_norm", 1, (3,)),
    (nn.LayerNorm(8), "layer_norm", -1, ()),
    (nn.LayerNorm(8, bias=False), "layer_norm", -1, ()),
    (nn.LayerNorm(8, elementwise_affine=False), "layer_norm", -1, ()),
    (CalledNorm(8), "called_layer_norm", -1, ()),
    (nn.RMSNorm(8), "rms_norm", -1, ()),
    (CalledRMSNorm(8), "called_rms_norm", -1, ()),
    (HandNorm(8), "member_forward", -1, ()),
    (HandMapNorm(8), "member_forward_of_maps", 1, (2, 2)),
    (nn.PReLU(8), "prelu", 1, (3,)),
    (nn.PReLU(1), "prelu", 1, (3,)),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("multiplicity", [1, 3])
@pytest.mark.parametrize(("old", "name", "axis", "space"), CASES)
def test_members_make_up_the_resized_module(
    old: nn.Module,
    name: str,
    axis: int,
    space: tuple[int, ...],
    multiplicity: int,
    training: bool,
) -> None:
    torch.manual_seed(0)
    rule = resizable_module(name)
    new = rule.resize(old.train(training), multiplicity, 6)
    assert new.training == training
    assert [n for n, _ in new.named_parameters()] == [n for n, _ in old.named_parameters()]
    for tensor in (*new.parameters(), *new.buffers()):
        if tensor.dim():
            tensor.data = torch.rand_like(tensor) + 0.5
    x = torch.randn(4, 6 * multiplicity, *space) if axis == 1 else torch.randn(4, 3, 18)
    x = x if axis == 1 else x[..., : 6 * multiplicity]
    narrow = [rule.member(new, j, multiplicity) for j in range(multiplicity)]
    outs = [m(c) for m, c in zip(narrow, x.chunk(multiplicity, axis), strict=True)]
    torch.testing.assert_close(new(x), torch.cat(outs, axis))


def test_settings_keep_their_constant_or_their_mean_square() -> None:
    old = nn.BatchNorm2d(4)
    old.weight.data = torch.tensor([1.0, -2.0, 3.0, -6.0])
    old.bias.data.fill_(0.1)
    old.running_var.fill_(7.0)
    old.num_batches_tracked.fill_(11)
    old.bias.requires_grad_(False)
    new = resize_batch_norm(old, 2, 3)
    assert isinstance(new, nn.BatchNorm2d) and new.num_features == 6
    squares = new.weight.unflatten(0, (2, 3)).square().mean(1)
    torch.testing.assert_close(squares, old.weight.square().mean().expand(2))
    assert bool((new.weight < 0).any()) and bool((new.weight > 0).any())
    assert torch.equal(new.bias, old.bias[:1].expand(6))
    assert torch.equal(new.running_var, torch.full((6,), 7.0))
    assert int(new.num_batches_tracked) == 11
    assert new.weight.requires_grad and not new.bias.requires_grad


@pytest.mark.parametrize(
    ("groups", "channels", "width", "expected"),
    [(4, 8, 6, 3), (32, 256, 16, 2), (32, 256, 64, 8), (1, 8, 5, 1), (8, 8, 6, 6), (32, 256, 4, 1)],
)
def test_group_norm_gives_members_whole_groups_no_smaller_than_before(
    groups: int, channels: int, width: int, expected: int
) -> None:
    new = resize_group_norm(nn.GroupNorm(groups, channels), 3, width)
    assert isinstance(new, nn.GroupNorm)
    assert (new.num_groups, new.num_channels) == (3 * expected, 3 * width)


def test_layer_norm_of_one_member_stays_a_layer_norm() -> None:
    assert type(resize_layer_norm(nn.LayerNorm(8), 1, 6)) is nn.LayerNorm
    assert type(resize_layer_norm(nn.LayerNorm(8), 2, 6)) is MemberLayerNorm
    with pytest.raises(RewriteError, match="normalised axes"):
        resize_layer_norm(nn.LayerNorm((4, 8)), 2, 4)


class ChannelsFirst(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def test_only_plain_norms_are_resized() -> None:
    with pytest.raises(RewriteError, match="overrides forward"):
        resize_layer_norm(ChannelsFirst(4), 2, 2)
    with pytest.raises(RewriteError, match="is none of"):
        resize_batch_norm(nn.GroupNorm(2, 4), 2, 2)


def test_what_calls_no_layer_norm_is_refused_and_what_calls_one_keeps_its_eps() -> None:
    rule = resizable_module("called_layer_norm")
    new = rule.resize(CalledNorm(8), 2, 3)
    assert isinstance(new, MemberLayerNorm) and new.eps == 1e-4
    by_torch = CalledNorm(8)
    by_torch.forward = lambda x: torch.layer_norm(x, (8,), by_torch.weight, None, 0.5)
    assert rule.resize(by_torch, 1, 6).eps == 0.5
    rms = resizable_module("called_rms_norm").resize(CalledRMSNorm(8), 2, 3)
    assert isinstance(rms, MemberRMSNorm) and rms.eps == 1e-4
    with pytest.raises(RewriteError, match="no norm over one axis"):
        rule.resize(nn.Identity(), 2, 3)


def test_meta_norms_stay_on_meta() -> None:
    new = resize_batch_norm(nn.BatchNorm2d(4, device="meta"), 2, 3)
    assert all(tensor.is_meta for tensor in (*new.parameters(), *new.buffers()))


class Maps(nn.Module):
    """Convolutions and hand-written norms over channels; ``order`` says when the activation comes.

    Where it comes before the norm, the norm is more than a norm.
    """

    class Early(HandMapNorm):
        def forward(self, x: Tensor) -> Tensor:
            x = self.act(x)
            return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True)) * self.weight[:, None, None]

    def __init__(self, norm: type[HandMapNorm] = HandMapNorm) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.blocks = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.norms, self.head = nn.ModuleList(norm(16) for _ in range(2)), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.head(x.mean((2, 3)))


@pytest.mark.thorough
def test_norms_of_maps_that_are_written_by_hand_are_called_member_by_member() -> None:
    torch.manual_seed(0)
    net, x = Maps(), torch.randn(2, 3, 8, 8)
    result = cerewrite.convert(
        net,
        x,
        scope="network",
        estimator="analytic",
        gain="he",
        allow="all",
        budget="params=3x",
        fixed={"stem": "4x8"},
    )
    assert result.verification.passed
    new = result.model.norms[0]
    assert isinstance(new, MemberForward) and new.members == result.plan.splits[0].multiplicity
    targets = [op.target for op in trace(result.model, x).ops]
    assert targets.count("member_forward_op") == targets.count("relu") == 2


@pytest.mark.parametrize(
    ("norm", "codes"), [(HandMapNorm, set()), (Maps.Early, {"not-member-wise"})]
)
def test_a_module_that_does_more_than_norm_keeps_the_width(
    norm: type[nn.Module], codes: set[str]
) -> None:
    traced = trace(Maps(norm), torch.ones(2, 3, 8, 8))
    stream = next(width for width in traced.widths if width.name == "stem")
    assert {pin.code for pin in stream.pins} == codes


class Merging(nn.Module):
    """Patches of 2 x 2 put side by side, normed and read, as Swin's stages are joined."""

    def __init__(self, how: str = "cat", norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.how, self.stem = how, nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.reduction = norm(32), nn.Linear(32, 16, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(n, 2 * n), nn.GELU(), nn.Linear(2 * n, n)) for n in (8, 16)
        )
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.blocks[0](x)
        if self.how == "view":
            b, h, w, c = x.shape
            x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        else:
            x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        x = self.reduction(self.norm(x))
        return self.head((x + self.blocks[1](x)).mean((1, 2)))


@pytest.mark.parametrize("how", ["cat", "view"])
def test_patches_side_by_side_are_a_concatenation(how: str) -> None:
    traced = trace(Merging(how), torch.ones(2, 3, 8, 8))
    stem, *_ = traced.widths
    assert stem.name == "stem" and not stem.pins
    reduction = next(layer for layer in traced.layers if layer.name == "reduction")
    assert reduction.sources == ("stem",) * 4
    assert [module.widths for module in stem.modules] == [("stem",) * 4]


@pytest.mark.thorough
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, CalledNorm])
def test_a_norm_over_a_concatenation_gathers_each_members_features(norm: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net, x = Merging(norm=norm), torch.randn(2, 3, 8, 8)
    result = cerewrite.convert(
        net,
        x,
        scope="network",
        estimator="analytic",
        gain="he",
        allow="all",
        budget="params=3x",
    )
    (split,) = result.plan.splits
    assert split.multiplicity > 1 and result.verification.passed
    order = result.model.norm.before.order.tolist()
    assert order != sorted(order)
    result.model.norm.before = result.model.norm.after = None  # the planted fault
    checks = cerewrite.verify(net, result.model, result.plan, x).checks
    assert not next(check.passed for check in checks if check.name == "membership")
