"""The tiny models that the laws of rewriting and verifying are tested on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from cerewrite.ir import Region
from tests.rewriting.builders import Case, layer, region


def _mlp_layer_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 12),
        nn.LayerNorm(12),
        nn.ReLU(),
        nn.Linear(12, 8, bias=False),
        nn.LayerNorm(8, elementwise_affine=False),
        nn.GELU(),
        nn.Linear(8, 10),
        nn.PReLU(10),
        nn.Linear(10, 3),
    )


def _mlp_layer_norm_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [layer(model, n, i - 1, i if i < 3 else -1) for i, n in enumerate("0368")]
    modules = [("1", "layer_norm", 0), ("4", "layer_norm", 1), ("7", "prelu", 2)]
    return (region(model, layers, modules),)


def _mlp_batch_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 9),
        nn.BatchNorm1d(9),
        nn.SiLU(),
        nn.Linear(9, 7),
        nn.BatchNorm1d(7, affine=False),
        nn.ReLU(),
        nn.Linear(7, 4),
    )


def _mlp_batch_norm_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [layer(model, n, i - 1, i if i < 2 else -1) for i, n in enumerate("036")]
    return (region(model, layers, [("1", "batch_norm", 0), ("4", "batch_norm", 1)]),)


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", dilation=2),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, 3, stride=2, padding=1, padding_mode="circular"),
        nn.GroupNorm(4, 12),
        nn.PReLU(12),
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(12, 6, 1),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        nn.Conv2d(6, 5, (2, 1)),
    )


def _cnn_regions(model: nn.Module) -> tuple[Region, ...]:
    names = ("0", "3", "8", "10")
    layers = [layer(model, n, i - 1, i if i < 3 else -1) for i, n in enumerate(names)]
    modules = [
        ("1", "batch_norm", 0),
        ("4", "group_norm", 1),
        ("5", "prelu", 1),
        ("6", "depthwise_conv", 1),
        ("9", "batch_norm", 2),
    ]
    return (region(model, layers, modules),)


class Bottleneck(nn.Module):
    """A residual bottleneck whose last norm starts at zero."""

    def __init__(self, channels: int, hidden: int, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, channels, 1)
        self.bn3 = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn3.weight)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(self.conv1(x)))
        out = self.act(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x
        return self.act(out)


class ResNet(nn.Module):
    """Two bottlenecks, one of them in a list, and a head that starts at zero."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.ModuleList([Bottleneck(12, 8, groups)])
        self.named = nn.ModuleDict({"last": Bottleneck(12, 8, groups)})
        self.head = nn.Linear(12, 5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.named["last"](x).mean((2, 3)))


def _resnet_regions(groups: int):  # noqa: ANN202
    def regions(model: nn.Module) -> tuple[Region, ...]:
        found = []
        for prefix in ("blocks.0", "named.last"):
            names = [f"{prefix}.conv{i}" for i in (1, 2, 3)]
            layers = [layer(model, n, i - 1, i if i < 2 else -1) for i, n in enumerate(names)]
            modules = [(f"{prefix}.bn{i + 1}", "batch_norm", i) for i in (0, 1)]
            found.append(region(model, layers, modules, groups))
        return tuple(found)

    return regions


def _conv_flatten_linear() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3),
        nn.BatchNorm2d(5),
        nn.AdaptiveAvgPool2d((2, 1)),
        nn.Flatten(),
        nn.Linear(10, 7),
        nn.Dropout(0.3),
        nn.Linear(7, 4),
    )


def _conv_flatten_linear_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [
        layer(model, "0", -1, 0),
        layer(model, "2", 0, 1),
        layer(model, "6", 1, 2, inner=2),
        layer(model, "8", 2, -1),
    ]
    return (region(model, layers, [("3", "batch_norm", 1)]),)


def _flatten_exit() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 6, 3, stride=2, bias=False),
        nn.BatchNorm1d(6, track_running_stats=False),
        nn.Tanh(),
        nn.Conv1d(6, 4, 2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 5, 3),
    )


def _flatten_exit_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [layer(model, "0", -1, 0), layer(model, "3", 0, 1), layer(model, "6", 1, -1, inner=5)]
    return (region(model, layers, [("1", "batch_norm", 0)]),)


def _conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 2),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.Conv3d(4, 6, (1, 2, 2), dilation=(1, 2, 1)),
        nn.ELU(),
        nn.Conv3d(6, 2, 1, bias=False),
    )


def _conv3d_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [layer(model, n, i - 1, i if i < 2 else -1) for i, n in enumerate("035")]
    return (region(model, layers, [("1", "batch_norm", 0)]),)


def _tokens() -> nn.Module:
    """Linears over ``[batch, tokens, features]``."""
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 6))


def _tokens_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [layer(model, n, i - 1, i if i < 2 else -1) for i, n in enumerate("024")]
    return (region(model, layers),)


class Dense(nn.Module):
    """A block whose layers read the concatenation of all before them, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 6, 1, bias=False)
        self.grow = nn.Conv2d(6, 4, 3, padding=1)
        self.slope = nn.PReLU(12)
        self.norm2 = nn.BatchNorm2d(12)
        self.grow2 = nn.Conv2d(12, 4, 3, padding=1)
        self.head = nn.Linear(4 * (8 + 4 + 4), 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.grow(self.squeeze(self.norm(x)).relu())
        z = self.grow2(self.norm2(self.slope(torch.cat([x, y], 1))).relu())
        pooled = nn.functional.adaptive_avg_pool2d(torch.cat((y, z, x), dim=1), 2)
        return self.head(pooled.flatten(1))


def _dense_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [
        layer(model, "stem", -1, 0),
        layer(model, "squeeze", 0, 1),
        layer(model, "grow", 1, 2),
        layer(model, "grow2", (0, 2), 3),
        layer(model, "head", (2, 3, 0), -1, inner=4),
    ]
    modules = [
        ("norm", "batch_norm", 0),
        ("slope", "prelu", (0, 2)),
        ("norm2", "batch_norm", (0, 2)),
    ]
    return (region(model, layers, modules),)


class Towers(nn.Module):
    """Linear towers side by side, read block by block; one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 6), nn.Linear(5, 4)
        self.middle, self.last = nn.Linear(16, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x).relu(), self.right(x).tanh()
        return self.last(self.middle(torch.cat([left, right, left], -1)).relu())


def _towers_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [
        layer(model, "left", -1, 0),
        layer(model, "right", -1, 1),
        layer(model, "middle", (0, 1, 0), 2),
        layer(model, "last", 2, -1),
    ]
    return (region(model, layers),)


class Gated(nn.Module):
    """A grouped convolution and a squeeze-excite gate between two dense ones, as in RegNet."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 1)
        self.b = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.norm = nn.BatchNorm2d(12)
        self.fc1, self.fc2 = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.c = nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.b(self.a(x).relu())).relu()
        gate = self.fc2(self.fc1(nn.functional.adaptive_avg_pool2d(x, 1)).relu())
        return self.c(x * gate.sigmoid())


def _gated_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [
        layer(model, "a", -1, 0),
        replace(layer(model, "b", 0, 1), groups=3),
        layer(model, "fc1", 1, 2),
        layer(model, "fc2", 2, 1),
        layer(model, "c", 1, -1),
    ]
    return (region(model, layers, [("norm", "batch_norm", 1)]),)


def _decoder() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 6, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(8, affine=True),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ReflectionPad2d(1),
        nn.Conv2d(8, 6, 3, bias=False),
        nn.AdaptiveMaxPool2d(3),
        nn.ConvTranspose2d(6, 3, 2, stride=2),
    )


def _decoder_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [layer(model, n, i - 1, i if i < 3 else -1) for i, n in enumerate("0268")]
    return (region(model, layers, [("3", "batch_norm", 1)]),)


def _decoder1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 3),
        nn.ConvTranspose1d(8, 4, 3, stride=2, groups=2, dilation=2, bias=False),
        nn.SiLU(),
        nn.Conv1d(4, 6, 1),
        nn.Conv1d(6, 2, 2),
    )


def _decoder1d_regions(model: nn.Module) -> tuple[Region, ...]:
    layers = [layer(model, n, i - 1, i if i < 3 else -1) for i, n in enumerate("0134")]
    layers[1] = replace(layers[1], groups=2)
    return (region(model, layers),)


CASES = {
    case.name: case
    for case in (
        Case("mlp_layer_norm", _mlp_layer_norm, (4, 6), _mlp_layer_norm_regions, ((3, (5, 4, 3)),)),
        Case("mlp_batch_norm", _mlp_batch_norm, (6, 5), _mlp_batch_norm_regions, ((4, (3, 5)),)),
        Case("mlp_one_member", _mlp_batch_norm, (6, 5), _mlp_batch_norm_regions, ((1, (6, 5)),)),
        Case("cnn", _cnn, (2, 3, 9, 9), _cnn_regions, ((3, (4, 6, 3)),)),
        Case("resnet", ResNet, (3, 3, 6, 6), _resnet_regions(1), ((3, (4, 3)), (2, (5, 5)))),
        Case(
            "resnext",
            lambda: ResNet(groups=2),
            (3, 3, 6, 6),
            _resnet_regions(2),
            ((4, (3, 3)), (1, (6, 5))),
        ),
        Case(
            "conv_flatten_linear",
            _conv_flatten_linear,
            (3, 2, 9, 9),
            _conv_flatten_linear_regions,
            ((3, (3, 4, 5)),),
        ),
        Case("flatten_exit", _flatten_exit, (3, 3, 9), _flatten_exit_regions, ((2, (4, 3)),)),
        Case("conv3d", _conv3d, (2, 1, 4, 5, 4), _conv3d_regions, ((2, (3, 4)),)),
        Case("dense", Dense, (2, 3, 5, 5), _dense_regions, ((3, (4, 3, 2, 2)),)),
        Case("towers", Towers, (4, 5), _towers_regions, ((2, (3, 4, 5)),)),
        Case("gated", Gated, (2, 3, 4, 4), _gated_regions, ((2, (6, 9, 3)),)),
        Case("decoder", _decoder, (2, 3, 4, 5), _decoder_regions, ((3, (4, 3, 2)),)),
        Case("decoder1d", _decoder1d, (2, 2, 7), _decoder1d_regions, ((2, (6, 4, 3)),)),
        Case("tokens", _tokens, (2, 5, 6), _tokens_regions, ((4, (3, 2)),)),
    )
}


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """A bit-for-bit copy of a model's state."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states have the same names in the same order and the same bits."""
    return list(first) == list(second) and all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype
        for name in first
    )
