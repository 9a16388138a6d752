"""Split the transposed convolutions of a region into members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cerewrite.rewriting.engine import Pass, PassResult, register
from cerewrite.rewriting.session import Session
from passes.split_conv import split_layers


@register
@dataclass(frozen=True)
class SplitConvTranspose(Pass):
    """Entries become dense to all members, interiors grouped, exits dense from all members."""

    name: ClassVar[str] = "split_conv_transpose"

    def apply(self, session: Session) -> PassResult:
        """Swap the transposed convolutions of every changing region."""
        return split_layers(session, self.name, "conv_transpose")
