"""Local maps: singular values of each layer's linear map at one input, and what skips add."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

import networkx as nx
import torch
from torch import Tensor

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material
from cerewrite.diagnostics.tap import Joined, Seen, skips, watch
from cerewrite.ir import TracedModel

CHANNELS = 16
"""Channels of a residual block whose map is taken: the first, at the middle position."""

ZERO = 1e-7
"""Singular values under this share of the largest count as zero: squares are taken in float64."""


@register
class LocalMap(Diagnostic):
    """Singular values of ``D W``: a layer's weight behind which its activation stands."""

    name = "local-map"
    title = "local maps"
    formula = (
        "log10 of smallest, median and largest singular value and of the condition number of "
        "D W per layer, D the slopes of batch norm and activation at the first example's middle "
        "position, rows of silent units left out; for skips, of the block's Jacobian J on "
        f"{CHANNELS} channels against I + J"
    )
    source = "Riedi, Balestriero & Baraniuk, Singular Value Perturbation (2203.03099)"
    caveats = (
        "A convolution's map is that of one patch; batch norms are held at their statistics.",
        f"Of a block, the first {CHANNELS} channels at one position, the others held.",
        "The eigenvalues of the layers' Gram matrices are no pass and not counted.",
        "Singular values under 1e-7 of the largest count as zero and are left out.",
    )
    needs = "inputs"

    def cost(self, material: Material) -> Passes:
        """Gram matrices of the layers' maps; per channel of a block, a pass back through it."""
        work = sum(
            2 * min(y.out_channels // y.groups, y.fan_in) * y.out_channels * y.fan_in
            for y in material.traced.layers
        )
        flops = max(material.traced.flops, 1)
        back = CHANNELS * sum(block_flops(material.traced)) / flops
        return Passes(1 + work / (material.batch * flops) + back, 0)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        seen = watch(material)
        values = {name: found for name in seen.slopes if len(found := layer_spectrum(seen, name))}
        if not values:
            raise NotApplicableError(
                "no linear or convolution module runs with a parameter of its own as its weight",
                advice="local maps are of stock linear and convolution modules",
            )
        lost = [name for name in seen.weights if name not in values]
        notes = (f"no local map: {', '.join(lost)} (no unit is active)",) if lost else ()
        layers = {
            "log10 condition": {n: math.log10(float(s[0] / s[-1])) for n, s in values.items()},
            "log10 smallest": {n: math.log10(float(s[-1])) for n, s in values.items()},
            "log10 median": {n: math.log10(float(s.median())) for n, s in values.items()},
            "log10 largest": {n: math.log10(float(s[0])) for n, s in values.items()},
        }
        figures = {name: fmean(each.values()) for name, each in layers.items()}
        added = skip_conditions(material, seen)
        if added:
            for index, name in enumerate(("block, without skip", "block, with skip")):
                layers[name] = {where: pair[index] for where, pair in added.items()}
                figures[name] = fmean(layers[name].values())
        return Reading(figures, layers, notes)


def block_flops(traced: TracedModel) -> Iterator[int]:
    """FLOPs of what lies between the operands of every sum of a value and a function of it."""
    graph = nx.DiGraph([(source, op.name) for op in traced.ops for source in op.inputs])
    flops = {
        node: layer.flops // len(layer.nodes) for layer in traced.layers for node in layer.nodes
    }
    for op in traced.ops:
        if op.target.strip("_") not in ("add", "iadd") or len(op.inputs) < 2:
            continue
        for own, end in (op.inputs[:2], op.inputs[1::-1]):
            if own != end and nx.has_path(graph, own, end):
                between = nx.descendants(graph, own) & ({end} | nx.ancestors(graph, end))
                yield sum(flops.get(name, 0) for name in between)
                break


def layer_spectrum(seen: Seen, name: str) -> Tensor:
    """Singular values of ``D W`` above zero, descending, float64."""
    weight, groups = seen.weights[name]
    slope = seen.slopes[name][0]
    # Linear layers have channels last, convolutions first; one position is enough.
    flat = slope.reshape(-1, slope.shape[-1]) if weight.dim() == 2 else slope.flatten(1).T
    rows = flat[len(flat) // 2].detach().double()[:, None] * weight.double().flatten(1)
    found = [singular_values(part[part.abs().amax(1) > 0]) for part in rows.chunk(groups)]
    values = torch.cat(found).sort(descending=True).values
    return values[values > ZERO * values[0]] if len(values) else values


def singular_values(matrix: Tensor) -> Tensor:
    """All min(rows, columns) singular values, from the smaller Gram matrix."""
    if not len(matrix):
        return matrix.new_zeros(0)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return squares.clamp_min(0).sqrt()


def skip_conditions(material: Material, seen: Seen) -> dict[str, tuple[float, float]]:
    """log10 of the condition number of J and of I + J for every block, by its sum."""
    found = {}
    for joined, own in skips(seen):
        whole = block_jacobian(joined, own)
        unit = torch.eye(len(whole), dtype=whole.dtype)
        found[joined.where] = (condition(whole - unit), condition(whole))
    return found


def block_jacobian(joined: Joined, own: int) -> Tensor:
    """``d (x + g(x)) / d x`` on the first channels at the first example's middle position."""
    shape = joined.left.shape
    # Maps have channels second, vectors and sequences last.
    image = len(shape) > 3
    channels = min(CHANNELS, shape[1] if image else shape[-1])
    places = _places(shape, channels, image)
    rows = []
    for place in places:
        pick = torch.zeros_like(joined.left)
        pick[place] = 1
        (row,) = torch.autograd.grad(
            joined.edges[2], joined.edges[own], pick, retain_graph=True, allow_unused=True
        )
        rows.append(torch.stack([row[at] for at in places]))
    return torch.stack(rows).double()


def _places(shape: torch.Size, channels: int, image: bool) -> list[tuple[int, ...]]:
    middle = tuple(size // 2 for size in (shape[2:] if image else shape[1:-1]))
    return [(0, c, *middle) if image else (0, *middle, c) for c in range(channels)]


def condition(matrix: Tensor) -> float:
    """log10 of largest over smallest singular value, at most ``-log10(ZERO)``."""
    values = torch.linalg.svdvals(matrix)
    largest = float(values[0])
    return -math.log10(max(float(values[-1]) / largest, ZERO)) if largest else -math.log10(ZERO)
