"""Draw the members' weights: by the plan's initialiser, member by member."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError
from cerewrite.initialisers import Custom, Initialiser, Original, find_initialiser
from cerewrite.ir import exit_factor
from cerewrite.nn import scale_of
from cerewrite.ops import sampled_layer, sampled_of
from cerewrite.ops.modules import SampledLayer
from cerewrite.rewriting.engine import Pass, PassResult, Phase, register
from cerewrite.rewriting.session import Session


def layer_generator(seed: int, name: str) -> torch.Generator:
    """A generator for one layer: the same for the same seed and name, whatever the order."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


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
        rules = {layer.name: sampled_layer(layer.op) for _, layer in session.layers()}
        drawn = 0
        for name, module in session.originals.items():
            new = session.get(name)
            rule = sampled_of(new)
            if rule is not None and not new.get_parameter("weight").is_meta:
                generator = layer_generator(session.plan.seed, name)
                original = _measure(rules.get(name, rule), name, module)
                with torch.no_grad():
                    writers, readers = members[name]
                    factor = exit_factor(session.plan.exit_scale, readers) / scale_of(new)
                    pieces = [p for row in rule.member_weights(new, writers, readers) for p in row]
                    _draw(new, pieces, factor, original, initialiser, generator)
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


def _measure(rule: SampledLayer, name: str, module: nn.Module) -> Original:
    weight, inputs = module.get_parameter("weight").detach(), rule.fan_in(module)
    norm = float(torch.linalg.vector_norm(weight, dtype=torch.float64))
    gain = inputs * norm * norm / weight.numel()
    if not math.isfinite(gain):
        raise RewriteError(
            f"the weights of '{name}' are not finite: they have no gain to keep",
            advice="initialise the model before rewriting it",
        )
    return Original(name, module, gain, inputs)


def _draw(
    module: nn.Module,
    pieces: Sequence[Tensor],
    factor: float,
    original: Original,
    initialiser: Initialiser,
    generator: torch.Generator,
) -> None:
    """Fill weight and bias; draws are made on the CPU, so that every device gets the same ones."""
    for piece in pieces:
        values = _buffer(piece)
        if original.gain > 0:
            initialiser.draw(values, original, generator)
        piece.copy_(values * factor)
    bias = getattr(module, "bias", None)
    if bias is not None and getattr(original.module, "bias", None) is not None:
        values = _buffer(bias)
        initialiser.draw_bias(values, original, generator)
        bias.copy_(values)


def _buffer(like: Tensor) -> Tensor:
    """Zeros of that shape, float32 or float64, on the CPU."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.zeros(like.shape, dtype=dtype)
