"""Layers and width classes as frozen data, named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

from cerewrite.frontend.tracing.classes import Classes
from cerewrite.ir import Layer, PerChannel, Rejection, WidthClass


@dataclass(frozen=True, slots=True)
class UnresolvedLayer:
    """A sampled layer with its classes still as numbers.

    Attributes:
        layer: the layer, without its classes.
        source: the class that it reads, or a concatenation; None if not followed.
        target: the class that it writes, likewise.
        parted: whether it can write several parts side by side.
    """

    layer: Layer
    source: int | None
    target: int | None
    parted: bool = False


def freeze(
    found: Sequence[UnresolvedLayer], classes: Classes, written: Sequence[str]
) -> tuple[tuple[Layer, ...], tuple[WidthClass, ...], dict[int, str]]:
    """Name the classes after their first writers.

    Args:
        found: the layers, in execution order.
        classes: the classes that they read and write.
        written: names of everything that writes a class, layers and tables, in execution order.

    Returns:
        Layers, classes, and the classes' names by number.
    """
    roots = classes.roots()
    order = {name: i for i, name in enumerate(written)}
    _refuse_uneven(found, classes)
    names = {i: min(classes.drafts[i].writers, key=order.__getitem__) for i in roots}
    frozen = []
    for i in sorted(roots, key=lambda root: order[names[root]]):
        draft = classes.drafts[i]
        modules = tuple(_module(module, widths, names, classes) for module, widths in draft.modules)
        frozen.append(
            WidthClass(
                name=names[i],
                size=draft.size,
                writers=tuple(sorted(draft.writers, key=order.__getitem__)),
                readers=tuple(sorted(draft.readers, key=order.__getitem__)),
                couplings=tuple(sorted(draft.couplings)),
                modules=modules,
                pins=tuple(dict.fromkeys(draft.pins)),
                step=draft.step,
            )
        )
    return tuple(_named(item, names, classes) for item in found), tuple(frozen), names


def _named(found: UnresolvedLayer, names: dict[int, str], classes: Classes) -> Layer:
    sources = () if found.source is None else classes.resolve(found.source)
    targets = set() if found.target is None else set(classes.resolve(found.target))
    one = found.target is not None and len(targets) == 1
    return replace(
        found.layer,
        sources=tuple(names[source] for source in sources),
        target=names[targets.pop()] if one else None,
        times=1 if found.source is None else classes.scales(found.source)[0],
        writes=classes.scales(found.target) if one and found.target is not None else (1,),
    )


def _module(
    module: PerChannel, widths: Sequence[int], names: dict[int, str], classes: Classes
) -> PerChannel:
    """A per-channel module with its classes named, and per channel of them."""
    times = classes.scales(widths[0])[0]
    shared = gcd(times * module.times, module.per)
    return replace(
        module,
        widths=tuple(names[classes.find(width)] for width in widths),
        params=module.params * times,
        flops=module.flops * times,
        times=times * module.times // shared,
        per=module.per // shared,
    )


def _refuse_uneven(found: Sequence[UnresolvedLayer], classes: Classes) -> None:
    """Pin classes that something reads side by side, some of them more often than others."""
    for item in found:
        for end in (item.source, item.target):
            if end is None:
                continue
            scales = classes.scales(end)
            uneven = len(set(scales)) > 1 and end is item.source
            grouped = item.layer.groups > 1 and set(scales) != {1}
            can = item.parted and item.layer.groups == 1
            alike = item.target == item.source  # depthwise: every part is written as it is read
            parted = len(scales) > 1 and end is item.target and not (can or alike)
            if uneven or grouped or parted:
                classes.pin(end, _uneven(item.layer.name))
    for i in classes.roots():
        for module, widths in classes.drafts[i].modules:
            scales = tuple(scale for width in widths for scale in classes.scales(width))
            if len(set(scales)) > 1:
                for width in widths:
                    classes.pin(width, _uneven(module.name))


def _uneven(where: str) -> Rejection:
    return Rejection(
        where,
        "not-member-wise",
        f"'{where}' has channels side by side of which a member owns unequal shares",
        "let one layer per part write or read its channels",
    )
