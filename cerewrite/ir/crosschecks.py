"""What the fields of one record must be to each other; `cerewrite.ir.ranges` has each alone."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from cerewrite.errors import PlanError
from cerewrite.ir.flat import json_fields
from cerewrite.ir.profile import BlockTimes
from cerewrite.ir.regions import Region, RegionLayer
from cerewrite.ir.results import Analysis, Plan, ScopeFindings

Problem = tuple[str, str]
"""The field, and what is wrong with it."""


def check_parts(record: Any, where: str) -> None:
    """Check every record inside of one against itself; in time linear in its size.

    Raises:
        PlanError: naming the field.
    """
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        for field, problem in _CHECKS.get(type(record), _nothing)(record):
            raise PlanError(
                f"{where}.{field}: {problem}", advice="mend the field or write the file again"
            )
        for name, inner in known_fields(type(record)).items():
            if inner is not None:
                check_parts(getattr(record, name), f"{where}.{name}")
    elif isinstance(record, tuple):
        for index, item in enumerate(record):
            check_parts(item, f"{where}[{index}]")


@functools.cache
def known_fields(kind: type) -> dict[str, Any]:
    """The fields of a record, each with its type if that holds records, else None."""
    fields = json_fields(kind)
    return {name: hint if holds_records(hint) else None for name, hint in fields.items()}


@functools.cache
def holds_records(kind: Any) -> bool:
    """Whether values of a type are records, or hold some."""
    return dataclasses.is_dataclass(typing.get_origin(kind) or kind) or any(
        map(holds_records, typing.get_args(kind))
    )


def _nothing(record: Any) -> Iterator[Problem]:
    yield from ()


def _region(region: Region) -> Iterator[Problem]:
    count = len(region.classes)
    index = {name: i for i, name in enumerate(region.classes)}
    if not count:
        yield "classes", "has no width class"
    if len(index) < count:
        yield "classes", "names a width class twice"
    if len(region.sizes) != count:
        yield "sizes", f"has {len(region.sizes)} sizes for {count} classes"
    for i, size in enumerate(region.sizes):
        if size % region.multiplicity:
            yield f"sizes[{i}]", f"{size} is no multiple of multiplicity {region.multiplicity}"
    for i, layer in enumerate(region.layers):
        yield from _layer(f"layers[{i}]", layer, count)
    for i, module in enumerate(region.modules):
        unknown = next((name for name in module.widths if name not in index), None)
        if unknown is not None:
            yield f"modules[{i}].widths", f"'{unknown}' is no class of the region"
        at = (index[name] for name in module.widths)
        yield from _divides(f"modules[{i}].divisor", module.divisor, at, region)
    for i, layer in enumerate(region.layers):
        ends = (*layer.sources, *((layer.target,) if layer.target >= 0 else ()))
        yield from _divides(f"layers[{i}].groups", layer.groups, iter(ends), region)
        if not layer.writes or min(layer.writes) < 1:
            yield f"layers[{i}].writes", "an entry is no whole number above 0, or there is none"
    if len(region.heads) not in (0, count):
        yield "heads", f"has {len(region.heads)} entries for {count} classes"
    for i, step in enumerate(region.heads[:count]):
        yield from _divides(f"heads[{i}]", step, iter((i,)), region)
    for i, site in enumerate(region.sites):
        if site.width >= count:
            yield f"sites[{i}].width", f"{site.width} is no index of {count} classes"
        if site.coefficient < 0.0:
            yield f"sites[{i}].c_norm", "makes the correction negative"
    yield from _costs(region)


def _costs(region: Region) -> Iterator[Problem]:
    """What budgets of time and memory know of a region."""
    count = len(region.classes)
    if region.kept is not None and len(region.kept.per_channel) != count:
        yield "kept.per_channel", f"has {len(region.kept.per_channel)} entries for {count} classes"
    if region.profile is None:
        return
    if len(region.profile.linear) != count:
        yield "profile.linear", f"has {len(region.profile.linear)} entries for {count} classes"
    for i, block in enumerate(region.profile.blocks):
        if max(block.source, block.target) >= count:
            yield f"profile.blocks[{i}]", f"reads or writes a class that is none of the {count}"


def _divides(field: str, step: int, at: Iterator[int], region: Region) -> Iterator[Problem]:
    for i in at:
        if region.sizes[i] // region.multiplicity % step:
            yield field, f"{step} does not divide the width of '{region.classes[i]}'"


def _layer(where: str, layer: RegionLayer, count: int) -> Iterator[Problem]:
    """Ends inside the region are what the layer's role says, and are classes of it."""
    reads, writes = layer.role != "entry", layer.role != "exit"
    if bool(layer.sources) != reads:
        yield f"{where}.sources", f"an {layer.role} layer has {len(layer.sources)} sources"
    if (layer.target >= 0) != writes:
        yield f"{where}.target", f"an {layer.role} layer writes class {layer.target}"
    if layer.target >= count:
        yield f"{where}.target", f"{layer.target} is no index of {count} classes"
    if layer.sources and max(layer.sources) >= count:
        yield f"{where}.sources", f"{max(layer.sources)} is no index of {count} classes"


def _block(block: BlockTimes) -> Iterator[Problem]:
    if len(block.nanoseconds) != len(block.widths) or not block.widths:
        yield "nanoseconds", f"has {len(block.nanoseconds)} times for {len(block.widths)} widths"
    if any(low >= high for low, high in pairwise(block.widths)):
        yield "widths", "does not ascend"
    if not all(time > 0.0 for time in block.nanoseconds):
        yield "nanoseconds", "holds a time of 0"


def _names(what: str, names: Iterator[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield f"{what}[{index}]", f"'{name}' is there twice"
        seen.add(name)


def _plan(plan: Plan) -> Iterator[Problem]:
    yield from _names("regions", (region.name for region in plan.regions))
    yield from _names("budgets", (budget.cost for budget in plan.budgets))


def _found(found: Analysis | ScopeFindings) -> Iterator[Problem]:
    yield from _names("regions", (estimate.name for estimate in found.regions))
    for index, estimate in enumerate(found.regions):
        if estimate.region.name != estimate.name:
            yield f"regions[{index}].region.name", f"is not '{estimate.name}'"


_CHECKS: dict[type, Callable[[Any], Iterator[Problem]]] = {
    Region: _region,
    BlockTimes: _block,
    Plan: _plan,
    Analysis: _found,
    ScopeFindings: _found,
}
