"""How far a region reaches: what width classes are split together (docs/theory.md, section 8)."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx

from cerewrite.ir import TracedModel, WidthClass

SCOPES = ("block", "stage", "network")
"""From the narrowest to the widest."""

AUTO = "auto"
"""Every scope is planned and the best plan is kept."""


def is_stream(width: WidthClass) -> bool:
    """Whether sums tie several layers' outputs together: a residual stream."""
    return "add" in width.couplings and len(width.writers) > 1


def group_classes(
    traced: TracedModel, free: Sequence[WidthClass], scope: str
) -> list[tuple[str, ...]]:
    """The sets of width classes that are split together, in execution order.

    * ``block``: hidden classes that layers connect; streams are not among the free ones.
    * ``stage``: a residual stream with the hidden classes whose readers write to it (to the
      first of them if they write to several); hidden classes that write to no free stream
      stay among themselves.
    * ``network``: whatever layers connect, streams included.

    Args:
        traced: the traced model.
        free: the classes that may be split at this scope.
        scope: ``block``, ``stage`` or ``network``.
    """
    order = {width.name: i for i, width in enumerate(traced.widths)}
    graph = traced.width_graph()
    if scope == "stage":
        sets = _stages(graph, free, order)
    else:
        sets = list(nx.weakly_connected_components(graph.subgraph(w.name for w in free)))
    classes = [tuple(sorted(names, key=order.__getitem__)) for names in sets]
    return sorted(classes, key=lambda names: order[names[0]])


def _stages(
    graph: nx.MultiDiGraph, free: Sequence[WidthClass], order: dict[str, int]
) -> list[set[str]]:
    stages = {width.name: {width.name} for width in free if is_stream(width)}
    hidden = graph.subgraph(width.name for width in free if width.name not in stages)
    alone = []
    for names in nx.weakly_connected_components(hidden):
        written = {target for _, target in graph.out_edges(names)} & stages.keys()
        if written:
            stages[min(written, key=order.__getitem__)] |= names
        else:
            alone.append(set(names))
    return [*stages.values(), *alone]
