"""Resize the per-channel modules of a region: norms, depthwise convolutions, PReLU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from cerewrite.ops import resizable_module
from cerewrite.rewriting.engine import Pass, PassResult, Phase, register
from cerewrite.rewriting.session import Session


@register
@dataclass(frozen=True)
class ResizeNorm(Pass):
    """Give every per-channel module the members' channels, acting member by member."""

    name: ClassVar[str] = "resize_norm"
    phase: ClassVar[Phase] = Phase.RESIZE

    def apply(self, session: Session) -> PassResult:
        """Swap the per-channel modules of every changing region."""
        count = 0
        for change, module in session.modules():
            rule = resizable_module(module.op)
            m, width = change.split.multiplicity, change.width(module)
            session.change(module.name, partial(rule.resize, multiplicity=m, width=width))
            count += 1
        return PassResult(self.name, f"{count} per-channel modules resized")
