"""Three small convolutional networks for docs/GRID.md, and the nu of their designs.

A design has one multiplicity and one fraction of every width, or a plan's own widths. Members of
a chain are independent, batch norms included (they are per channel), so that one member is drawn
and its nu divided by m (docs/theory.md, section 2); blocks share a stream, so that the whole
model is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

import cerewrite
from cerewrite import ir
from cerewrite.estimators import Assumption
from cerewrite.estimators.draws import Ratio, relative_variance
from cerewrite.estimators.monte_carlo import subject_of
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Design
from cerewrite.planning.budgets import region_cost

Designs = Mapping[str, tuple[int, tuple[int, ...]]]
"""Members and widths of one, by region."""

WIDTHS = (4, 5, 6, 8, 10, 12, 16)
"""Widths of the first hidden layer in the grid, beside the network's own."""


class Network:
    """A network as a function of its hidden widths.

    Attributes:
        name: what it is.
        widths: of the hidden layers (of one block, where there are blocks).
        side: of the input maps.
        batch: examples; more than one where batch norms need it.
        draws: per design, for errors of about 3 % where nu is small.
        independent: whether members share nothing but the input.
    """

    name = ""
    widths: tuple[int, ...] = ()
    side = 8
    batch = 1
    draws = 800
    independent = True

    def build(self, widths: Sequence[int]) -> nn.Module:
        """The network at other widths."""
        raise NotImplementedError


class Plain(Network):
    """Four convolutions, no norms."""

    name = "plain chain 4 x 32, relu, 8 x 8 px"
    widths = (32, 32, 32, 32)
    draws = 8000

    def build(self, widths: Sequence[int]) -> nn.Module:
        """See `Network.build`."""
        layers: list[nn.Module] = []
        for before, width in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.ReLU()]
        head = nn.Linear(widths[-1], 10, bias=False)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


class Pooled(Network):
    """As in VGG, with batch norms, a max-pool and a stride."""

    name = "strided and pooled 24,24,48,48, batch norm, relu, 16 x 16 px"
    widths = (24, 24, 48, 48)
    side = 16
    batch = 4

    def build(self, widths: Sequence[int]) -> nn.Module:
        """See `Network.build`."""
        layers: list[nn.Module] = []
        for index, (before, width) in enumerate(zip((3, *widths), widths, strict=False)):
            stride = 2 if index == 2 else 1
            conv = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            if index == 1:
                layers += [nn.MaxPool2d(2)]
        head = nn.Linear(widths[-1], 10, bias=False)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


class Bottleneck(nn.Module):
    """``relu(x + branch(x))``."""

    def __init__(self, stream: int, widths: Sequence[int]) -> None:
        super().__init__()
        first, second = widths
        self.branch = nn.Sequential(
            nn.Conv2d(stream, first, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1, bias=False), nn.BatchNorm2d(second), nn.ReLU(),
            nn.Conv2d(second, stream, 1, bias=False), nn.BatchNorm2d(stream),
        )  # fmt: skip
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, stream, h, w]`` to the same."""
        summed: Tensor = self.relu(x + self.branch(x))
        return summed


class Residual(Network):
    """Two bottlenecks with batch norms on a stream of 64."""

    name = "2 bottlenecks 64-32-32-64, batch norm, relu, 8 x 8 px"
    widths = (32, 32)
    batch = 4
    draws = 600
    independent = False

    def build(self, widths: Sequence[int]) -> nn.Module:
        """See `Network.build`."""
        stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64))
        blocks = [Bottleneck(64, widths) for _ in range(2)]
        head = nn.Linear(64, 10, bias=False)
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(stem, *blocks, *pool, head)


NETWORKS: tuple[Network, ...] = (Plain(), Residual(), Pooled())


def photographs(pixels: int, count: int = 2) -> Tensor:
    """Photographs ``[count, 3, pixels, pixels]``, each channel of mean 0 and mean square 1.

    Both sample images of scikit-learn, cut square and shrunk; then the same mirrored.
    """
    from sklearn.datasets import load_sample_images

    images = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
    squares = images.permute(0, 3, 1, 2).float()[:, :, :, 100:527]
    small = nn.functional.interpolate(squares, size=(pixels, pixels), mode="area")
    small = torch.cat([small, small.flip(3)])[:count]
    centred = small - small.mean((2, 3), keepdim=True)
    return centred / centred.square().mean((2, 3), keepdim=True).sqrt()


def grid(analysis: ir.Analysis) -> list[Designs]:
    """As many members as the parameters allow, at eight widths in the network's proportions."""
    regions = [estimate.region for estimate in analysis.regions]
    first = regions[0].widths[0]
    budget = sum(region_cost("params", r, Design(1, r.widths)) for r in regions)
    found: list[Designs] = []
    for n in (*WIDTHS, first):
        widths = {r.name: tuple(n * width // first for width in r.widths) for r in regions}
        one, two = (
            sum(region_cost("params", r, Design(m, widths[r.name])) for r in regions)
            for m in (1, 2)
        )
        m = 1 + (budget - one) // (two - one)
        found.append({name: (m, row) for name, row in widths.items()})
    return found


def measured(network: Network, analysis: ir.Analysis, model: nn.Module, design: Designs) -> Ratio:
    """Nu of a design by Monte-Carlo, with its standard error."""
    x = photographs(network.side, network.batch)
    members = 1
    if network.independent:
        ((members, widths),) = design.values()
        own: nn.Module = network.build(widths)
    elif any(m > 1 for m, _ in design.values()):
        plan = cerewrite.plan(
            analysis, budget="params=4x", fixed=dict(design), allow="all", widths="free"
        )
        own = cerewrite.apply(plan, model)
    else:
        own = model
    seed = 1000 * members + sum(sum(widths) for _, widths in design.values())
    subject = subject_of(trace(own, x), own, x, Assumption(gain=2.0, seed=seed))
    nu = relative_variance([subject.kernel(index) for index in range(network.draws)])
    return Ratio(nu.value / members, nu.stderr / members)
