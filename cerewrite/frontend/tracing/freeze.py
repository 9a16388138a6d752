"""Layers and width classes as frozen data, named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cerewrite.frontend.tracing.classes import Classes
from cerewrite.ir import Layer, WidthClass


@dataclass(frozen=True, slots=True)
class UnresolvedLayer:
    """A sampled layer with its classes still as numbers.

    Attributes:
        layer: the layer, without its classes.
        source: the class that it reads, or a concatenation; None if not followed.
        target: the class that it writes, likewise.
    """

    layer: Layer
    source: int | None
    target: int | None


def freeze(
    found: Sequence[UnresolvedLayer], classes: Classes
) -> tuple[tuple[Layer, ...], tuple[WidthClass, ...], dict[int, str]]:
    """Name the classes after their first writers.

    Args:
        found: the layers, in execution order.
        classes: the classes that they read and write.

    Returns:
        Layers, classes, and the classes' names by number.
    """
    roots = classes.roots()
    order = {item.layer.name: i for i, item in enumerate(found)}
    names = {i: min(classes.drafts[i].writers, key=order.__getitem__) for i in roots}
    frozen = []
    for i in roots:
        draft = classes.drafts[i]
        modules = tuple(
            replace(module, widths=tuple(names[classes.find(width)] for width in widths))
            for module, widths in draft.modules
        )
        frozen.append(
            WidthClass(
                name=names[i],
                size=draft.size,
                writers=tuple(sorted(draft.writers, key=order.__getitem__)),
                readers=tuple(sorted(draft.readers, key=order.__getitem__)),
                couplings=tuple(sorted(draft.couplings)),
                modules=modules,
                pins=tuple(dict.fromkeys(draft.pins)),
            )
        )
    return tuple(_named(item, names, classes) for item in found), tuple(frozen), names


def _named(found: UnresolvedLayer, names: dict[int, str], classes: Classes) -> Layer:
    sources = () if found.source is None else classes.resolve(found.source)
    targets = () if found.target is None else classes.resolve(found.target)
    return replace(
        found.layer,
        sources=tuple(names[source] for source in sources),
        target=names[targets[0]] if len(targets) == 1 else None,
    )
