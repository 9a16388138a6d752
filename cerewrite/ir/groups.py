"""Members that a model has already: width classes that layers with groups connect."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.graph import Layer, TracedModel


@dataclass(frozen=True, slots=True)
class Bundle:
    """Width classes whose units lie in the same members.

    Attributes:
        groups: members: the groups of the layers that connect the classes.
        classes: names of the classes, in execution order.
    """

    groups: int
    classes: tuple[str, ...]


def bundles(traced: TracedModel) -> tuple[Bundle, ...]:
    """The members that a traced model has already, apart from depthwise layers.

    A layer with groups reads and writes each of its members' units by themselves. Classes that
    such layers connect, all with the same number of groups, share their members. Where a layer
    without groups leads from one of them to another, members are mixed on the way, as in residual
    streams that layers with groups read: then streams are left out. A class that layers with
    several numbers of groups touch counts with the largest.

    Args:
        traced: the traced model.

    Example:
        >>> from torch import nn, ones
        >>> from cerewrite.frontend.tracing import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=4),
        ...                     nn.ReLU(), nn.Conv2d(8, 2, 1))
        >>> bundles(trace(net, ones(2, 3, 4, 4)))
        (Bundle(groups=4, classes=('0', '2')),)
    """
    streams = {w.name for w in traced.widths if "add" in w.couplings and len(w.writers) > 1}
    grouped = [y for y in traced.layers if y.groups > 1 and y.op != "depthwise_conv"]
    order = {width.name: i for i, width in enumerate(traced.widths)}
    owner: dict[str, int] = {}
    for layer in sorted(grouped, key=lambda layer: -layer.groups):
        for name in _touched(layer):
            owner.setdefault(name, layer.groups)
    import networkx as nx  # takes as long to import as everything else here

    graph: nx.Graph[str] = nx.Graph()
    for layer in grouped:
        own = [name for name in _touched(layer) if owner[name] == layer.groups]
        graph.add_nodes_from(own)
        nx.add_path(graph, own)
    found = []
    for names in nx.connected_components(graph):
        if _mixed(traced, names):
            names = names - streams
        for part in nx.connected_components(graph.subgraph(names)):
            classes = tuple(sorted(part, key=order.__getitem__))
            found.append(Bundle(owner[classes[0]], classes))
    return tuple(sorted(found, key=lambda bundle: order[bundle.classes[0]]))


def class_groups(traced: TracedModel) -> dict[str, int]:
    """The members of every width class that has several."""
    return {name: bundle.groups for bundle in bundles(traced) for name in bundle.classes}


def _touched(layer: Layer) -> list[str]:
    """The classes that a layer reads and writes."""
    return [name for name in (*layer.sources, layer.target) if name is not None]


def _mixed(traced: TracedModel, names: set[str]) -> bool:
    """Whether a layer without groups leads from one of some classes to another."""
    return any(
        layer.groups == 1 and layer.target in names and not names.isdisjoint(layer.sources)
        for layer in traced.layers
    )
