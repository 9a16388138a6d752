"""Monte-Carlo of dense networks for one example, exact in law and without drawing a matrix.

For one input a, a Gaussian layer's output ``z = W a`` is Gaussian of variance ``s |a|^2``, and
given z the gradient that it hands back, ``W' b``, is ``a (z . b) / |a|^2`` plus an independent
Gaussian of variance ``s |b|^2`` orthogonal to a. Drawing those two vectors instead of W costs a
row of the matrix per draw, so that 200,000 draws take seconds. Not for batch norms, which mix
examples, nor for weights used twice.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CHUNK = 4000


class _Drawn(torch.autograd.Function):
    """A linear layer whose weights are integrated out; adds its part of K on the way back."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, layer: DrawnLinear) -> Tensor:
        spread = (a.square().sum(1, keepdim=True) * layer.variance).sqrt()
        z = torch.randn(len(a), layer.units, generator=layer.generator) * spread
        ctx.save_for_backward(a, z)
        ctx.layer = layer
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (a, z), b, layer = ctx.saved_tensors, grads[0], ctx.layer
        energy, back = (t.square().sum(1, keepdim=True) for t in (a, b))
        layer.kernel += layer.variance * (energy * back)[:, 0].double()
        fresh = torch.randn(a.shape, generator=layer.generator) * (back * layer.variance).sqrt()
        along = (z * b).sum(1, keepdim=True) - (a * fresh).sum(1, keepdim=True)
        return fresh + a * along / energy.clamp_min(1e-30), None


class DrawnLinear(nn.Module):
    """Stands for a linear layer of the same gain and bias variance."""

    def __init__(self, layer: nn.Linear, kernel: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.units = layer.out_features
        self.variance = float(layer.weight.detach().double().square().mean())
        bias = layer.bias
        self.bias = 0.0 if bias is None else float(bias.detach().double().square().mean()) ** 0.5
        self.kernel, self.generator = kernel, generator

    def forward(self, a: Tensor) -> Tensor:
        """``[draws, fan_in]`` to ``[draws, units]``."""
        z: Tensor = _Drawn.apply(a, self)
        return z + self.bias * torch.randn(z.shape, generator=self.generator) if self.bias else z


def kernels(model: nn.Module, x: Tensor, draws: int, seed: int = 0) -> np.ndarray:
    """K of the first example, NTK parametrisation, gains and biases as built, ``[draws]``.

    Args:
        model: a network of linear layers and operators on rows, outputs ``[batch, channels]``.
        x: inputs; the first counts.
        draws: how many.
        seed: of the draws.
    """
    found = []
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, draws, CHUNK):
        count = min(CHUNK, draws - start)
        kernel = torch.zeros(count, dtype=torch.float64)
        own = copy.deepcopy(model)
        for module in list(own.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, DrawnLinear(child, kernel, generator))
        y = own(x[:1].expand(count, -1).clone().requires_grad_())
        (y.sum() / math.sqrt(y.shape[1])).backward()
        found.append(kernel.numpy())
    return np.concatenate(found)
