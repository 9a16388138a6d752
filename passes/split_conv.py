"""Split the convolutions of a region into members."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from cerewrite.ops.base import OPRULES, LayerRule
from cerewrite.rewriting.engine import Pass, PassResult, register
from cerewrite.rewriting.session import Session


def split_layers(session: Session, name: str, op: str) -> PassResult:
    """Swap every sampled layer of one operator rule for its ensemble.

    A layer between two regions is an exit of the one and an entry of the other: it is split
    once for each.

    Args:
        session: the rewriting under way.
        name: the pass that asks.
        op: the operator rule.
    """
    rule = OPRULES[op]
    assert isinstance(rule, LayerRule), op
    names = set()
    for change, layer in session.layers(op):
        m, widths = change.split.multiplicity, change.split.widths
        session.change(layer.name, partial(rule.split, layer=layer, multiplicity=m, widths=widths))
        names.add(layer.name)
    return PassResult(name, f"{len(names)} {op} layers split")


@register
@dataclass(frozen=True)
class SplitConv(Pass):
    """Entries become dense to all members, interiors grouped, exits dense from all members."""

    name: ClassVar[str] = "split_conv"

    def apply(self, session: Session) -> PassResult:
        """Swap the convolutions of every changing region."""
        return split_layers(session, self.name, "conv")
