"""Monte-Carlo of dense networks whose batch norms mix examples: many draws at a time.

Every weight matrix is drawn (`unit_draws` cannot: it follows one example), and a chunk of networks
runs forward and backward as one batch of matrix products, `torch.func.vmap` of the gradient.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

CHUNK_ELEMENTS = 4_000_000
"""Weights drawn at a time, all networks of a chunk together."""


def kernels(model: nn.Module, x: Tensor, draws: int, seed: int = 0) -> np.ndarray:
    """K of the first example in its batch, NTK parametrisation, gains and biases as built.

    Args:
        model: linear layers, norms in training mode and operators on rows, outputs
            ``[batch, channels]``; every weight is drawn with its own mean square, and so is every
            bias of a linear layer.
        x: the batch.
        draws: how many.
        seed: of the draws.

    Returns:
        ``[draws]``, float64.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        >>> kernels(net, torch.randn(6, 4), 3).shape
        (3,)
    """
    own = copy.deepcopy(model).train().requires_grad_(False)
    for norm in own.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
            norm.num_batches_tracked = None
    linear = [(name, m) for name, m in own.named_modules() if isinstance(m, nn.Linear)]
    weights = {f"{name}.weight": m.weight.detach() for name, m in linear}
    biases = {f"{name}.bias": m.bias.detach() for name, m in linear if m.bias is not None}
    spread = {
        name: float(w.double().square().mean()) ** 0.5 for name, w in (weights | biases).items()
    }

    def output(drawn: dict[str, Tensor], added: dict[str, Tensor]) -> Tensor:
        y: Tensor = functional_call(own, (drawn, added), (x,))[0]
        return y.sum() / math.sqrt(len(y))

    slopes = vmap(grad(output))
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, CHUNK_ELEMENTS // sum(w.numel() for w in weights.values()))
    found = []
    for start in range(0, draws, chunk):
        count = min(chunk, draws - start)
        drawn, added = (
            {
                n: spread[n] * torch.randn(count, *v.shape, generator=generator)
                for n, v in of.items()
            }
            for of in (weights, biases)
        )
        by = slopes(drawn, added)
        total = sum(spread[n] ** 2 * g.double().flatten(1).square().sum(1) for n, g in by.items())
        found.append(torch.as_tensor(total).numpy())
    return np.concatenate(found)
