"""What a concatenation and existing groups ask of the classes that meet there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cerewrite.ir import Layer, PerChannel, RegionLayer, Rejection, TracedModel


def held_by_concatenation(
    traced: TracedModel, refused: Mapping[str, Rejection]
) -> dict[str, Rejection]:
    """Classes that keep their width because they are concatenated with one that does.

    Members must own a slice of every part, so that the parts are split together or not at all.

    Args:
        traced: the traced model.
        refused: the classes that keep their width for reasons of their own.

    Returns:
        The further refusals, by class.
    """
    found: dict[str, Rejection] = {}
    known = dict(refused)
    pending = list(traced.concatenations)
    while pending:
        touched = [parts for parts in pending if any(part in known for part in parts)]
        if not touched:
            break
        pending = [parts for parts in pending if parts not in touched]
        for parts in touched:
            cause = next(part for part in parts if part in known)
            for part in parts:
                if part not in known:
                    known[part] = found[part] = _held(part, cause, known[cause])
    return found


def _held(part: str, cause: str, why: Rejection) -> Rejection:
    return Rejection(
        part,
        "concatenated-with-fixed",
        f"its width is kept: it is concatenated with '{cause}', which keeps its own ({why.code})",
        f"see '{cause}': {why.advice}",
    )


def torn(
    name: str, layers: Sequence[Layer], modules: Sequence[PerChannel], classes: Sequence[str]
) -> Rejection | None:
    """Why a region may not hold some parts of a concatenation only."""
    read = [(layer.name, layer.sources) for layer in layers]
    read += [(module.name, module.widths) for module in modules]
    for where, parts in read:
        inside = [part in classes for part in parts]
        if any(inside) and not all(inside):
            return Rejection(
                name,
                "split-concatenation",
                f"'{where}' reads a concatenation of which '{parts[inside.index(False)]}' lies "
                "outside",
                "a wider scope may hold all of its parts",
            )
    return None


def inner_groups(
    name: str, layers: Sequence[Layer], parts: Sequence[RegionLayer]
) -> tuple[int, tuple[int, ...]] | Rejection:
    """Members that a region has already, and the groups inside each of them, per layer.

    Where all interior layers have the same groups and entries and exits none, the groups are
    members. Otherwise the region is one member, whose grouped layers keep their groups.
    """
    groups = [layer.groups for layer in layers]
    interior = {g for g, part in zip(groups, parts, strict=True) if part.role == "interior"}
    for layer, part in zip(layers, parts, strict=True):
        if layer.groups > 1 and part.role != "interior":
            return Rejection(
                name,
                "grouped-boundary",
                f"'{layer.name}' has {layer.groups} groups and connects the region with a width "
                "that is kept: its groups would lie across the members",
                "use groups between two hidden widths only, or a scope that holds both sides",
            )
        if layer.groups > 1 and len(layer.sources) > 1:
            return Rejection(
                name,
                "grouped-concatenation",
                f"'{layer.name}' has {layer.groups} groups over a concatenation",
                "use one group where a concatenation is read",
            )
    if len(interior) == 1:
        return interior.pop(), (1,) * len(groups)
    blocks = next((layer.name for layer in layers if layer.op == "block_linear"), None)
    if blocks is not None:
        return Rejection(
            name,
            "members-inside",
            f"'{blocks}' has members of its own, beside layers that have others or none",
            "revert the model first, then plan anew",
        )
    return 1, tuple(groups)
