"""Put each member's channels side by side where a split layer reads a concatenation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from cerewrite.errors import RewriteError
from cerewrite.ir import PerChannel, RegionLayer
from cerewrite.nn import MemberNorm
from cerewrite.nn.channel_reorder import ConcatenationReader
from cerewrite.ops import concatenation_layer, resizable_module
from cerewrite.rewriting.engine import Pass, PassResult, Phase, register
from cerewrite.rewriting.session import Change, Session


@register
@dataclass(frozen=True)
class ReorderConcat(Pass):
    """Interior layers and norms over a concatenation reorder their input; exits need not.

    The parts of a concatenation lie one after another, each with all members in it, so a layer
    with one block per member, or a norm over each member's own channels, gathers the slices of its
    members first (DESIGN 4).
    """

    name: ClassVar[str] = "reorder_concat"
    phase: ClassVar[Phase] = Phase.REORDER

    def apply(self, session: Session) -> PassResult:
        """Swap every interior layer over a concatenation for one that reorders its input."""
        found = _readers(session)
        for change, layer in found:
            m, widths = change.split.multiplicity, change.split.widths
            rule = concatenation_layer(layer.op)
            times = m * layer.times * rule.inner(layer)
            parts = tuple(times * widths[source] for source in layer.sources)
            session.change(layer.name, partial(rule.reordering, parts=parts))
        norms = _norms(session)
        for change, item in norms:
            m, index = change.split.multiplicity, change.region.classes.index
            own = [change.split.widths[index(name)] for name in item.widths]
            norm = session.get(item.name)
            if not isinstance(norm, MemberNorm):
                raise RewriteError(
                    f"'{item.name}' is a {type(norm).__name__}, which cannot gather a member's "
                    "channels",
                    advice="run the pass 'resize_norm' first",
                )
            norm.gather([m * item.times * width for width in own])
        return PassResult(self.name, f"{len(found) + len(norms)} readers of concatenations")

    def ensures(self, session: Session) -> None:
        """No interior layer reads another member's channels."""
        for _, layer in _readers(session):
            if not isinstance(session.get(layer.name), ConcatenationReader):
                raise RewriteError(
                    f"'{layer.name}' reads a concatenation without reordering it",
                    advice="run the pass 'reorder_concat' after the layers are split",
                )
        for _, item in _norms(session):
            norm = session.get(item.name)
            if not isinstance(norm, MemberNorm) or norm.before is None:
                raise RewriteError(
                    f"'{item.name}' norms a concatenation without reordering it",
                    advice="run the pass 'reorder_concat' after the norms are resized",
                )


def _readers(session: Session) -> list[tuple[Change, RegionLayer]]:
    """Layers with one block per member that read several classes."""
    return [
        (change, layer)
        for change in session.changes
        for layer in change.region.layers
        if layer.role == "interior" and len(layer.sources) > 1 and change.split.multiplicity > 1
    ]


def _norms(session: Session) -> list[tuple[Change, PerChannel]]:
    """Norms over each member's own channels that read several classes."""
    return [
        (change, item)
        for change, item in session.modules()
        if len(item.widths) > 1
        and change.split.multiplicity > 1
        and resizable_module(item.op).gathers
    ]
