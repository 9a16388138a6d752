"""Draw the members' weights with each original layer's own gain."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError
from cerewrite.nn import BlockDiagonalLinear
from cerewrite.rewriter.engine import Pass, PassResult, register
from cerewrite.rewriter.session import Session
from cerewrite.surgery import conv_blocks, linear_blocks

_SAMPLED = (nn.Linear, BlockDiagonalLinear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def weight_blocks(module: nn.Module) -> Tensor:
    """The weight of a sampled layer with its fan-in on the last axis, a view."""
    if isinstance(module, nn.Linear | BlockDiagonalLinear):
        return linear_blocks(module)
    return conv_blocks(module)


def layer_generator(seed: int, name: str) -> torch.Generator:
    """A generator for one layer: the same for the same seed and name, whatever the order."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@register
@dataclass(frozen=True)
class Reinitialise(Pass):
    """Gaussian weights of variance ``gain / fan_in``, gain measured on the original's weights.

    ``gain = fan_in * E[W^2]`` (THEORY 1) with each layer's own fan-in, so an exit's larger
    fan-in carries the ``1 / sqrt(m)`` of THEORY 2. Weights that are all zero stay zero. Biases
    that are constant keep their constant, others are drawn with their mean and deviation.
    Parameters on the meta device are left undrawn.
    """

    name: ClassVar[str] = "reinitialise"
    after: ClassVar[tuple[str, ...]] = ("resize_norm", "split_conv", "split_linear")

    def apply(self, session: Session) -> PassResult:
        """Draw every sampled layer that was swapped."""
        drawn = 0
        for name, original in session.originals.items():
            module = session.get(name)
            if isinstance(module, _SAMPLED) and not module.weight.is_meta:
                _draw(module, original, layer_generator(session.plan.seed, name), name)
                drawn += 1
        return PassResult(self.name, drawn > 0, f"{drawn} layers drawn")

    def ensures(self, session: Session) -> None:
        """Nothing is left undrawn."""
        for name in session.originals:
            for key, tensor in session.get(name).named_parameters():
                if not tensor.is_meta and not bool(tensor.detach().isfinite().all()):
                    raise RewriteError(
                        f"'{name}.{key}' was left undrawn or is not finite",
                        advice="run a pass that draws the weights of this operator",
                    )


def _draw(module: nn.Module, original: nn.Module, generator: torch.Generator, name: str) -> None:
    old, new = weight_blocks(original).detach(), weight_blocks(module)
    norm = float(torch.linalg.vector_norm(old, dtype=torch.float64))
    gain = old.shape[-1] * norm * norm / old.numel()
    if not math.isfinite(gain):
        raise RewriteError(
            f"the weights of '{name}' are not finite: they have no gain to keep",
            advice="initialise the model before rewriting it",
        )
    deviation = math.sqrt(gain / new.shape[-1])
    with torch.no_grad():
        new.copy_(_normal(new, generator) * deviation)
        bias, old_bias = getattr(module, "bias", None), getattr(original, "bias", None)
        if bias is None or old_bias is None:
            return
        values = old_bias.detach().double()
        if bool((values == values[0]).all()):
            bias.fill_(float(values[0]))
        else:
            spread = float(values.std(correction=0))
            bias.copy_(float(values.mean()) + spread * _normal(bias, generator))


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal draws made on the CPU, so that every device gets the same ones."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.randn(like.shape, generator=generator, dtype=dtype).to(like.device)
