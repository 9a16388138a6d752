"""Split the sampled layers of a region into members."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from cerewrite.ops import FAMILIES, splittable_layer
from cerewrite.rewriting.engine import Pass, PassResult, Phase, register
from cerewrite.rewriting.session import Session


@register
@dataclass(frozen=True)
class SplitLayers(Pass):
    """Entries become dense to all members, interiors one block each, exits dense from all members.

    Each layer is split by the rule of its operator; one that no rule knows is left to other passes.
    A layer between two regions is an exit of the
    one and an entry of the other: it is split once for each.
    """

    name: ClassVar[str] = "split_layers"
    phase: ClassVar[Phase] = Phase.SPLIT

    def apply(self, session: Session) -> PassResult:
        """Swap the sampled layers of every changing region."""
        names: dict[str, set[str]] = {}
        for change, layer in session.layers():
            if layer.op not in FAMILIES:
                continue
            rule, split = splittable_layer(layer.op), change.split
            m, widths = split.multiplicity, split.widths
            build = partial(rule.split, layer=layer, multiplicity=m, widths=widths)
            session.change(layer.name, build)
            names.setdefault(layer.op, set()).add(layer.name)
        counts = [f"{len(names[op])} {op}" for op in sorted(names)]
        return PassResult(self.name, f"{', '.join(counts) or 'no'} layers split")
