"""Put each member's channels side by side where a split layer reads a concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from cerewrite.errors import RewriteError
from cerewrite.ir import PerChannel, RegionLayer
from cerewrite.nn import MemberLayerNorm, MemberRMSNorm
from cerewrite.nn.channel_reorder import ConcatenationReader
from cerewrite.ops import concatenation_layer, resizable_module
from cerewrite.rewriting.engine import Pass, PassResult, Phase, register
from cerewrite.rewriting.session import Change, Session


@register
@dataclass(frozen=True)
class ReorderConcat(Pass):
    """Interior layers over a concatenation reorder their input; exits and batch norms need not.

    The parts of a concatenation lie one after another, each with all members in it, so a layer
    with one block per member gathers the slices of its members first (DESIGN 4); a norm over a
    member's features gathers them, and puts them back.
    """

    name: ClassVar[str] = "reorder_concat"
    phase: ClassVar[Phase] = Phase.REORDER

    def apply(self, session: Session) -> PassResult:
        """Swap every interior layer over a concatenation for one that reorders its input."""
        norms = _norms(session)
        for change, module in norms:
            m, region = change.split.multiplicity, change.region
            own = (change.split.widths[region.classes.index(name)] for name in module.widths)
            sizes = [m * module.times * width for width in own]
            session.change(module.name, partial(_over_parts, parts=sizes))
        found = _readers(session)
        for change, layer in found:
            m, widths = change.split.multiplicity, change.split.widths
            rule = concatenation_layer(layer.op)
            times = m * layer.times * rule.inner(layer)
            parts = tuple(times * widths[source] for source in layer.sources)
            session.change(layer.name, partial(rule.reordering, parts=parts))
        return PassResult(self.name, f"{len(found) + len(norms)} readers of concatenations")

    def ensures(self, session: Session) -> None:
        """No interior layer reads another member's channels."""
        for _, layer in _readers(session):
            if not isinstance(session.get(layer.name), ConcatenationReader):
                raise RewriteError(
                    f"'{layer.name}' reads a concatenation without reordering it",
                    advice="run the pass 'reorder_concat' after the layers are split",
                )


def _over_parts(module: nn.Module, parts: Sequence[int]) -> nn.Module:
    """A norm of members that knows where their features lie."""
    assert isinstance(module, MemberLayerNorm | MemberRMSNorm), module
    module.over_parts(parts)
    return module


def _norms(session: Session) -> list[tuple[Change, PerChannel]]:
    """Norms over each member's own features of several classes."""
    return [
        (change, module)
        for change, module in session.modules()
        if len(module.widths) > 1
        and resizable_module(module.op).mixes
        and change.split.multiplicity > 1
    ]


def _readers(session: Session) -> list[tuple[Change, RegionLayer]]:
    """Layers with one block per member that read several classes."""
    return [
        (change, layer)
        for change in session.changes
        for layer in change.region.layers
        if layer.role == "interior" and len(layer.sources) > 1 and change.split.multiplicity > 1
    ]
