"""Keep the members' ``1 / sqrt(m)``, or their ``1 / m``, as an explicit multiplier at the exits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cerewrite.errors import RewriteError
from cerewrite.ir import exit_factor
from cerewrite.nn import SCALED, with_scale
from cerewrite.rewriting.engine import Pass, PassResult, Phase, register
from cerewrite.rewriting.session import Session


@register
@dataclass(frozen=True)
class ScaleExits(Pass):
    """Exits multiply what they read by ``m^(-1/2)`` or ``1 / m``, where the plan asks for it.

    ``f = m^(-1/2) sum_j f_j`` as written in docs/theory.md, eq. 4: each member's part of an exit
    is then drawn as its own narrow layer would be. The function at initialisation has the same
    distribution as with the factor folded into the weights; an optimiser sees it differently. With
    ``mean``, ``f = (1 / m) sum_j f_j``, member j's output `cerewrite.members` is ``f_j``, a
    network of its own (docs/theory.md, section 14).
    """

    name: ClassVar[str] = "scale_exits"
    phase: ClassVar[Phase] = Phase.SCALE

    def apply(self, session: Session) -> PassResult:
        """Swap the exits of every changing region for their scaled twins."""
        if session.plan.exit_scale == "folded":
            return PassResult(self.name, "the factor is folded into the exits' weights")
        count = 0
        for change in session.changes:
            m = change.split.multiplicity
            for layer in change.region.layers:
                if layer.role == "exit" and m > 1:
                    factor = exit_factor(session.plan.exit_scale, m)
                    session.swap(layer.name, _scaled(session.get(layer.name), layer.name, factor))
                    count += 1
        return PassResult(self.name, f"{count} exits scaled")


def _scaled(module: nn.Module, name: str, factor: float) -> nn.Module:
    if type(module) not in SCALED:
        raise RewriteError(
            f"'{name}' is a {type(module).__name__}, which cannot carry a multiplier",
            advice="fold a factor 1 / sqrt(m) into its weights (exit_scale='folded')",
        )
    twin: nn.Module = with_scale(module, factor)
    return twin
