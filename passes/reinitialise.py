"""Draw the members' weights: by the plan's initialiser, member by member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from cerewrite.errors import RewriteError
from cerewrite.initialisers import Custom, find_initialiser
from cerewrite.ir import exit_factor
from cerewrite.nn import scale_of
from cerewrite.ops import FAMILIES, sampled_layer, sampled_of
from cerewrite.rewriting.drawing import draw, measure
from cerewrite.rewriting.engine import Pass, PassResult, Phase, register
from cerewrite.rewriting.session import Session
from cerewrite.runtime.seeds import generator_for


@register
@dataclass(frozen=True)
class Reinitialise(Pass):
    """Draw each member as the narrow network it is; exits carry the factor of their sum.

    That is ``1 / sqrt(m)``, or ``1 / m`` where the plan's exits are a mean, as far as no multiplier
    carries it. The plan names the initialiser and holds the seed; by default weights are Gaussian
    with the original's own gain ``fan_in * E[W^2]`` (docs/theory.md, eq. 3). Weights that are all
    zero stay zero. Biases that are constant keep theirs, others are drawn with the original's mean
    and deviation. Parameters on the meta device are left undrawn.

    Attributes:
        init: an initialiser's name, or a function that fills a weight in place, instead of the
            plan's.
    """

    name: ClassVar[str] = "reinitialise"
    phase: ClassVar[Phase] = Phase.DRAW

    init: str | Custom | None = None

    def apply(self, session: Session) -> PassResult:
        """Draw every sampled layer that was swapped."""
        initialiser = find_initialiser(session.plan.init, self.init)
        members = _members(session)
        ops = {layer.name: layer.op for _, layer in session.layers()}
        drawn = 0
        for name, module in session.originals.items():
            new = session.get(name)
            rule = sampled_of(new)
            if rule is not None and not new.get_parameter("weight").is_meta:
                generator = generator_for(session.plan.seed, name)
                op = ops.get(name, "")
                original = measure(sampled_layer(op) if op in FAMILIES else rule, name, module)
                with torch.no_grad():
                    writers, readers = members[name]
                    factor = exit_factor(session.plan.exit_scale, readers) / scale_of(new)
                    pieces = [p for row in rule.member_weights(new, writers, readers) for p in row]
                    draw(new, pieces, factor, original, initialiser, generator)
                drawn += 1
        return PassResult(self.name, f"{drawn} layers drawn")

    def ensures(self, session: Session) -> None:
        """Nothing is left undrawn."""
        for name in session.originals:
            for key, tensor in session.get(name).named_parameters():
                if not tensor.is_meta and not bool(tensor.detach().isfinite().all()):
                    raise RewriteError(
                        f"'{name}.{key}' was left undrawn or is not finite",
                        advice="run a pass that draws the weights of this operator",
                    )


def _members(session: Session) -> dict[str, tuple[int, int]]:
    """Per layer, among how many members its output is divided, and how many it adds up."""
    found: dict[str, tuple[int, int]] = {}
    for change in session.changes:
        m = change.split.multiplicity
        for layer in change.region.layers:
            writers, readers = found.get(layer.name, (1, 1))
            found[layer.name] = (writers, m) if layer.role == "exit" else (m, readers)
        found |= {module.name: (m, 1) for module in change.region.modules}
    return found
