"""Split the linear layers of a region into members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cerewrite.rewriting.engine import Pass, PassResult, register
from cerewrite.rewriting.session import Session
from passes.split_conv import split_layers


@register
@dataclass(frozen=True)
class SplitLinear(Pass):
    """Entries become dense to all members, interiors block-diagonal, exits dense from all."""

    name: ClassVar[str] = "split_linear"

    def apply(self, session: Session) -> PassResult:
        """Swap the linear layers of every changing region."""
        result = split_layers(session, self.name, "linear")
        if next(iter(session.layers("block_linear")), None) is None:
            return result
        blocks = split_layers(session, self.name, "block_linear")
        return PassResult(self.name, f"{result.details}, {blocks.details}")
