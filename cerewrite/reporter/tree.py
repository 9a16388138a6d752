"""The model's modules as rows of a tree: every figure before and after on the same row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from cerewrite import ir
from cerewrite.planning.budgets import region_cost
from cerewrite.reporter.analysed import refusals

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One module.

    Attributes:
        name: qualified name; "" for the model itself.
        kind: name of its class; "" where that is not known.
        level: 1 for the model, 2 for its own modules.
        shape: of its weight, before and after.
        members: members and the width of each that the layer writes, before and after; for an
            exit, after, how many members it sums.
        params: parameters, those of the modules inside among them, before and after.
        flops: FLOPs per example, likewise.
        nanoseconds: of the regions that lie in it, before and after, as forecast from times of
            their layers; None where nothing was timed.
        share: its part of the sum of all kappas; None where no layer is in it.
        layer: what was found out about it, for a sampled layer.
        region: name of the region that it belongs to; "" for none.
        refused: why it, or something in it that has no row, stays as it is.
        nodes: names of its operators in the traced graph.
    """

    name: str
    kind: str = ""
    level: int = 1
    shape: tuple[Shape, Shape] = ((), ())
    members: tuple[str, str] = ("", "")
    params: tuple[int, int] = (0, 0)
    flops: tuple[int, int] = (0, 0)
    nanoseconds: tuple[int, int] | None = None
    share: float | None = None
    layer: ir.LayerEstimate | None = None
    region: str = ""
    refused: tuple[ir.Rejection, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its own name, without that of the module around it."""
        return self.name.rpartition(".")[2]


@dataclass(slots=True)
class _Ends:
    """A layer while its regions are gone through: channels at its ends, and its groups."""

    inputs: int
    outputs: int
    groups: int
    members: str = ""


@dataclass(frozen=True, slots=True)
class _Changed:
    """What a plan makes of one module: counts and shape from its channels."""

    params: int
    flops: int
    members: str
    ends: tuple[int, int, int]
    layer: ir.RegionLayer | None = None

    def shape(self, before: Shape, was: tuple[int, int, int]) -> Shape:
        """The weight's shape: channels replaced, kernel as it is."""
        inputs, outputs, groups = self.ends
        if len(before) < 2 or self.layer is None:  # a norm's, or a depthwise kernel
            return (before[0] * outputs // was[1], *before[1:]) if before else ()
        across = self.layer.op == "conv_transpose"
        ends = [inputs, outputs // groups] if across else [outputs, inputs // groups]
        old = [was[0], was[1] // was[2]] if across else [was[1], was[0] // was[2]]
        # a linear layer behind a flatten reads several elements of every channel
        return (*(n * b // o for n, b, o in zip(ends, before[:2], old, strict=True)), *before[2:])


def module_rows(analysis: ir.Analysis, plan: ir.Plan | None = None) -> tuple[Row, ...]:
    """Every module that holds parameters, FLOPs or a refusal, depth first, the model first.

    The rows' own figures add up to those of the whole model, before and after.

    Args:
        analysis: what was found out.
        plan: what is to change, if anything is.
    """
    own = {item.name: item for item in _own(analysis, plan)}
    known = {"", *own, *(item.name for item in analysis.modules)}
    for item in refusals(analysis, plan):
        place = item.where
        while place not in known:  # the module around it; in the end the model itself
            place = place.rpartition(".")[0]
        row = own.get(place, Row(place))
        own[place] = replace(row, refused=(*row.refused, item))
    for place, spent in _times(analysis, plan):
        row = own.get(place, Row(place))
        first = row.nanoseconds or (0, 0)
        own[place] = replace(row, nanoseconds=(first[0] + spent[0], first[1] + spent[1]))
    inside: dict[str, list[str]] = {"": []}
    for name in own:
        while name and name not in inside.get(parent := name.rpartition(".")[0], ()):
            inside.setdefault(parent, []).append(name)
            name = parent
    return tuple(_walk("", 1, own, inside, analysis))


def designs_of(analysis: ir.Analysis, plan: ir.Plan | None) -> dict[str, ir.Design]:
    """The plan's design of every region of the analysis; one that does not fit it is left out."""
    classes = {item.name: len(item.region.classes) for item in analysis.regions}
    return {
        split.region: split.design
        for split in (plan.splits if plan else ())
        if len(split.widths) == classes.get(split.region)
    }


def _walk(
    name: str,
    level: int,
    own: Mapping[str, Row],
    inside: Mapping[str, Sequence[str]],
    analysis: ir.Analysis,
) -> Iterator[Row]:
    """A module and those in it, with the sums of all of them."""
    row = own.get(name, Row(name))
    parts = [list(_walk(part, level + 1, own, inside, analysis)) for part in inside.get(name, ())]
    heads = [part[0] for part in parts]
    shares = [one.share for one in (row, *heads) if one.share is not None]
    timed = [one.nanoseconds for one in (row, *heads) if one.nanoseconds is not None]
    owns = bool(heads) and row.layer is None and row.params != (0, 0)
    total = replace(
        row,
        shape=((), ()) if owns else row.shape,
        level=level,
        kind=row.kind or (analysis.model if not name else ""),
        params=_sums(one.params for one in (row, *heads)),
        flops=_sums(one.flops for one in (row, *heads)),
        nanoseconds=_sums(timed) if timed else None,
        share=math.fsum(shares) if shares else None,
    )
    yield total
    if owns:  # a row of its own, so that the rows add up
        yield Row("", "own parameters", level + 1, row.shape, params=row.params)
    for part in parts:
        yield from part


def _sums(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    before, after = zip(*pairs, strict=True)
    return sum(before), sum(after)


def _own(analysis: ir.Analysis, plan: ir.Plan | None) -> Iterator[Row]:
    """Modules with their own figures, in the model's order."""
    layers = {item.name: item for item in analysis.layers}
    listed = _with_weights(analysis)
    regions = [item.region for item in analysis.regions]
    before, after = _changed(regions, {}), _changed(regions, designs_of(analysis, plan))
    roles = {item.name: region.name for region in regions for item in region.layers}
    for item in listed:
        layer, was, now = layers.get(item.name), before.get(item.name), after.get(item.name)
        if not item.params and layer is None and was is None:
            continue
        flops = layer.flops if layer else was.flops if was else 0
        params, spent, shape, members = item.params, flops, item.shape, ""
        if was is not None and now is not None and was != now:
            params += now.params - was.params
            spent += now.flops - was.flops
            shape, members = now.shape(item.shape, was.ends), now.members
        held = was.members if was and was.members else f"1 x {layer.width}" if layer else ""
        yield Row(
            name=item.name,
            kind=item.kind,
            shape=(item.shape, shape),
            members=(held, members or held),
            params=(item.params, params),
            flops=(flops, spent),
            share=layer.share if layer else None,
            layer=layer,
            region=(layer.region if layer else None) or roles.get(item.name, ""),
            nodes=item.nodes,
        )


def _with_weights(analysis: ir.Analysis) -> tuple[ir.ModuleSummary, ...]:
    """The modules, and the layers that are none: weights which a module reads by itself."""
    found = {item.name: item for item in analysis.modules}
    for layer in analysis.layers:
        if layer.name in found:
            continue
        place, params = layer.name.rpartition(".")[0], layer.params
        if place in found:  # they count there no more
            params = min(params, found[place].params)
            found[place] = replace(found[place], params=found[place].params - params)
        found[layer.name] = ir.ModuleSummary(layer.name, "weight", (), params)
    return tuple(found.values())


def _changed(regions: Sequence[ir.Region], designs: Mapping[str, ir.Design]) -> dict[str, _Changed]:
    """Counts of every module of the regions in their designs, their own where none is given."""
    ends: dict[str, _Ends] = {}
    found: dict[str, _Changed] = {}
    for region in regions:
        design = designs.get(region.name, region.design)
        m, widths = design.multiplicity, design.widths
        for layer in region.layers:
            at = ends.setdefault(layer.name, _Ends(layer.in_channels, layer.out_channels, 1))
            if layer.role != "entry":
                at.inputs = m * layer.reads(widths)
            if layer.role != "exit":
                at.outputs = m * widths[layer.target]
                at.members = f"{m} x {widths[layer.target]}"
            elif m > 1 and not at.members:
                at.members = f"sum of {m}"
            if layer.role == "interior":
                at.groups = m * layer.groups
            weights = layer.kernel * at.inputs * at.outputs // at.groups
            params = weights + (int(layer.bias) + layer.settings) * at.outputs
            flops = 2 * weights * layer.positions
            three = (at.inputs, at.outputs, at.groups)
            found[layer.name] = _Changed(params, flops, at.members, three, layer)
        for module in region.modules:
            width = m * region.width_of(module, widths)
            counts = (module.params * width, module.flops * width)
            found[module.name] = _Changed(*counts, "", (width, width, 1))
    return found


def _times(analysis: ir.Analysis, plan: ir.Plan | None) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each timed region's nanoseconds, at the smallest module that holds all its layers."""
    designs = designs_of(analysis, plan)
    for item in analysis.regions:
        region = item.region
        cost = "step" if region.step else "latency" if region.profile else ""
        if not cost:
            continue
        paths = zip(*(layer.name.split(".") for layer in region.layers), strict=False)
        place = ".".join(parts[0] for parts in takewhile(lambda parts: len({*parts}) == 1, paths))
        after = designs.get(region.name, region.design)
        yield place, (region_cost(cost, region, region.design), region_cost(cost, region, after))
