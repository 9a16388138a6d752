"""Tangent kernels of random ReLU chains, drawn with numpy alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def relu_kernels(width: int, depth: int, draws: int, seed: int) -> NDArray[np.float64]:
    """K of ``draws`` chains of equal widths, NTK parametrisation (docs/theory.md, section 1)."""
    rng = np.random.default_rng(seed)
    parts = [_batch(width, depth, min(2000, draws - at), rng) for at in range(0, draws, 2000)]
    return np.concatenate(parts)


def _batch(width: int, depth: int, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    forward = [np.ones((draws, 4))]
    weights = []
    for _ in range(depth):
        fan_in = forward[-1].shape[1]
        weight = rng.standard_normal((draws, width, fan_in)) * math.sqrt(2.0 / fan_in)
        weights.append(weight)
        forward.append(np.maximum(np.einsum("rij,rj->ri", weight, forward[-1]), 0.0))
    kernel = (forward[-1] ** 2).sum(axis=1) * 2.0 / width
    delta = rng.standard_normal((draws, width)) * math.sqrt(2.0 / width) * (forward[-1] > 0.0)
    for layer in range(depth - 1, -1, -1):
        fan_in = forward[layer].shape[1]
        energy = (forward[layer] ** 2).sum(axis=1) * (delta**2).sum(axis=1)
        kernel += energy * 2.0 / fan_in
        if layer:
            delta = np.einsum("rij,ri->rj", weights[layer], delta) * (forward[layer] > 0.0)
    return np.asarray(kernel)
