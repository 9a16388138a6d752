"""Twenty kinds of small networks, sizes drawn by a seed: what estimators are held against."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 8
BATCH = 4
TOKENS = 10


@dataclass(frozen=True)
class Kind:
    """One kind of network.

    Attributes:
        build: a network from a source of random sizes.
        inputs: shape of one example.
        smooth: whether maps are smoothed noise instead of white.
    """

    build: Callable[[random.Random], nn.Module]
    inputs: tuple[int, ...]
    smooth: bool = False


class Wider(random.Random):
    """Chooses widths as the source of a seed does, times a factor."""

    factor = 1

    def choice(self, seq: Sequence[int]) -> int:  # type: ignore[override]
        """One of several widths."""
        return self.factor * super().choice(seq)


def make(name: str, seed: int, wider: int = 1) -> tuple[nn.Module, Tensor]:
    """A network of a kind with its inputs, by a seed.

    Args:
        name: the kind.
        seed: of sizes, weights and inputs.
        wider: factor on all widths.

    Example:
        >>> net, x = make("plain CNN, smooth", 0)
        >>> net(x).shape
        torch.Size([4, 5])
    """
    kind = KINDS[name]
    torch.manual_seed(seed)
    source = Wider(seed)
    source.factor = wider
    model = kind.build(source)
    x = torch.randn(BATCH, *kind.inputs, generator=torch.Generator().manual_seed(seed))
    if kind.smooth:
        x = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="circular"), 5, stride=1)
        x = x / x.square().mean().sqrt()
    return model, x


class Residual(nn.Module):
    """``x + branch(x)``, an activation behind it if there is one."""

    def __init__(self, branch: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.after = branch, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        out: Tensor = self.after(x + self.branch(x))
        return out


class Dense(nn.Module):
    """The input beside what a branch makes of it."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """The concatenation along the channels."""
        return torch.cat([x, self.branch(x)], 1)


class Squeeze(nn.Module):
    """Squeeze-excite."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width // 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The channels, each times its gate."""
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class UNet(nn.Module):
    """One step down, one up, and a concatenation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.down = conv(3, width), conv(width, 2 * width)
        self.up, self.end = conv(2 * width, width), conv(2 * width, width)
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        first = self.enter(x).relu()
        low = self.down(F.max_pool2d(first, 2)).relu()
        high = self.up(F.interpolate(low, scale_factor=2.0)).relu()
        out: Tensor = self.head(self.end(torch.cat([first, high], 1)).relu())
        return out


class Tokens(nn.Module):
    """A linear layer along the tokens."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(TOKENS, hidden), nn.Linear(hidden, TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        """The tokens, mixed."""
        return self.last(F.gelu(self.first(x.transpose(1, 2)))).transpose(1, 2)


class Attention(nn.Module):
    """Softmax attention of a few heads."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """What the values weigh."""
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        mixed: Tensor = self.o(out.transpose(1, 2).flatten(2))
        return mixed


class Gated(nn.Module):
    """``down(act(gate(x)) * up(x))``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gated product."""
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels]``."""
        return x.mean(1)


class ChannelsLast(nn.Module):
    """A layer norm over the channels of a map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """The map, normed."""
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


def conv(n_in: int, n_out: int, k: int = 3, **more: int) -> nn.Conv2d:
    """A convolution that keeps the map's size, with He's gain."""
    layer = nn.Conv2d(n_in, n_out, k, padding=k // 2, bias=False, **more)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def head(width: int) -> nn.Sequential:
    """Pool and read out."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def stack(*parts: nn.Module) -> nn.Sequential:
    """A chain."""
    return nn.Sequential(*parts)


def normed(n_in: int, n_out: int, k: int = 3, **more: int) -> list[nn.Module]:
    """Convolution, batch norm, ReLU."""
    return [conv(n_in, n_out, k, **more), nn.BatchNorm2d(n_out), nn.ReLU()]


def plain_cnn(rng: random.Random) -> nn.Module:
    """Convolutions and ReLUs."""
    w = rng.choice((8, 12, 16))
    body = [x for i in range(3) for x in (conv(w if i else 3, w), nn.ReLU())]
    return stack(*body, *head(w))


def bn_cnn(rng: random.Random) -> nn.Module:
    """Convolutions with batch norms."""
    w = rng.choice((8, 12, 16))
    return stack(*normed(3, w), *normed(w, w), *normed(w, w), *head(w))


def basic_resnet(rng: random.Random) -> nn.Module:
    """Two basic blocks."""
    w = rng.choice((8, 12, 16))

    def block() -> nn.Module:
        return Residual(stack(*normed(w, w), conv(w, w), nn.BatchNorm2d(w)), nn.ReLU())

    return stack(*normed(3, w), block(), block(), *head(w))


def bottleneck_resnet(rng: random.Random) -> nn.Module:
    """Two bottlenecks."""
    w = rng.choice((4, 6, 8))

    def block() -> nn.Module:
        branch = stack(
            *normed(4 * w, w, 1), *normed(w, w), conv(w, 4 * w, 1), nn.BatchNorm2d(4 * w)
        )
        return Residual(branch, nn.ReLU())

    return stack(*normed(3, 4 * w), block(), block(), *head(4 * w))


def group_norm(rng: random.Random) -> nn.Module:
    """Convolutions with group norms."""
    w = rng.choice((8, 12, 16))
    body = [x for i in range(3) for x in (conv(w if i else 3, w), nn.GroupNorm(2, w), nn.ReLU())]
    return stack(*body, *head(w))


def depthwise(rng: random.Random) -> nn.Module:
    """Depthwise separable convolutions."""
    w = rng.choice((12, 16))
    body = [x for _ in range(2) for x in (*normed(w, w, groups=w), *normed(w, w, 1))]
    return stack(*normed(3, w), *body, *head(w))


def concatenated(rng: random.Random) -> nn.Module:
    """A small DenseNet."""
    w, g = rng.choice((8, 12)), rng.choice((4, 6, 8))
    blocks = [Dense(stack(*normed(w + i * g, g))) for i in range(3)]
    return stack(*normed(3, w), *blocks, *head(w + 3 * g))


def squeeze_excite(rng: random.Random) -> nn.Module:
    """Convolutions with gates."""
    w = rng.choice((8, 12))
    return stack(*normed(3, w), Squeeze(w), *normed(w, w), Squeeze(w), *head(w))


def u_net(rng: random.Random) -> nn.Module:
    """A small U-Net."""
    return UNet(rng.choice((6, 8, 12)))


def convnext(rng: random.Random) -> nn.Module:
    """Depthwise, layer norm, two layers over the channels, a sum."""
    w = rng.choice((8, 12))
    block = lambda: Residual(  # noqa: E731
        stack(
            conv(w, w, 5, groups=w),
            ChannelsLast(w),
            conv(w, 2 * w, 1),
            nn.GELU(),
            conv(2 * w, w, 1),
        )
    )
    return stack(conv(3, w), block(), block(), *head(w))


def mixer(rng: random.Random) -> nn.Module:
    """An MLP-Mixer."""
    w = rng.choice((12, 16))
    parts: list[nn.Module] = [nn.Linear(6, w)]
    for _ in range(2):
        parts.append(Residual(stack(nn.LayerNorm(w), Tokens(rng.choice((8, 16))))))
        mlp = stack(nn.LayerNorm(w), nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w))
        parts.append(Residual(mlp))
    return stack(*parts, nn.LayerNorm(w), Mean(), nn.Linear(w, 5))


def vit(rng: random.Random) -> nn.Module:
    """A pre-norm transformer without causality."""
    w = rng.choice((12, 16))
    parts: list[nn.Module] = [nn.Linear(6, w)]
    for _ in range(2):
        parts.append(Residual(stack(nn.LayerNorm(w), Attention(w, 2, causal=False))))
        mlp = stack(nn.LayerNorm(w), nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w))
        parts.append(Residual(mlp))
    return stack(*parts, nn.LayerNorm(w), Mean(), nn.Linear(w, 5))


def llama(rng: random.Random) -> nn.Module:
    """RMS norms, causal attention, gated layers."""
    w = rng.choice((12, 16))
    parts: list[nn.Module] = [nn.Linear(6, w, bias=False)]
    for _ in range(2):
        parts.append(Residual(stack(nn.RMSNorm(w), Attention(w, 2, causal=True))))
        parts.append(Residual(stack(nn.RMSNorm(w), Gated(w, 2 * w))))
    return stack(*parts, nn.RMSNorm(w), Mean(), nn.Linear(w, 5, bias=False))


def tanh_chain(rng: random.Random) -> nn.Module:
    """Four layers of tanh."""
    w = rng.choice((16, 24, 32))
    body = [x for i in range(4) for x in (nn.Linear(w if i else 6, w), nn.Tanh())]
    return stack(*body, nn.Linear(w, 5))


def deep_relu(rng: random.Random) -> nn.Module:
    """Twenty layers of ReLU."""
    w = rng.choice((48, 64, 96))
    layers = [nn.Linear(w if i else 6, w) for i in range(20)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
    return stack(*(x for layer in layers for x in (layer, nn.ReLU())), nn.Linear(w, 5))


def residual_mlp(rng: random.Random) -> nn.Module:
    """Three residual blocks."""
    w, h = rng.choice((16, 24)), rng.choice((16, 32))
    blocks = [Residual(stack(nn.Linear(w, h), nn.ReLU(), nn.Linear(h, w))) for _ in range(3)]
    return stack(nn.Linear(6, w), *blocks, nn.Linear(w, 5))


def gated_mlp(rng: random.Random) -> nn.Module:
    """Two gated blocks."""
    w = rng.choice((24, 32))
    return stack(
        nn.Linear(6, w), Gated(w, 2 * w), nn.LayerNorm(w), Gated(w, 2 * w), nn.Linear(w, 5)
    )


MAP, ROW, SEQUENCE = (3, SIDE, SIDE), (6,), (TOKENS, 6)

KINDS: dict[str, Kind] = {
    "plain CNN, white": Kind(plain_cnn, MAP),
    "plain CNN, smooth": Kind(plain_cnn, MAP, smooth=True),
    "CNN with BN, white": Kind(bn_cnn, MAP),
    "CNN with BN, smooth": Kind(bn_cnn, MAP, smooth=True),
    "basic ResNet with BN, white": Kind(basic_resnet, MAP),
    "basic ResNet with BN, smooth": Kind(basic_resnet, MAP, smooth=True),
    "bottleneck ResNet with BN": Kind(bottleneck_resnet, MAP),
    "group-norm net": Kind(group_norm, MAP),
    "depthwise, BN": Kind(depthwise, MAP),
    "concatenation, BN": Kind(concatenated, MAP),
    "squeeze-excite, BN": Kind(squeeze_excite, MAP),
    "U-Net": Kind(u_net, MAP),
    "ConvNeXt-like": Kind(convnext, MAP),
    "MLP-Mixer": Kind(mixer, SEQUENCE),
    "ViT, pre-LN": Kind(vit, SEQUENCE),
    "Llama-like": Kind(llama, SEQUENCE),
    "tanh chain": Kind(tanh_chain, ROW),
    "20-layer ReLU": Kind(deep_relu, ROW),
    "residual MLP": Kind(residual_mlp, ROW),
    "gated MLP": Kind(gated_mlp, ROW),
}
