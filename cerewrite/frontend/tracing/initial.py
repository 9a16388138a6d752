"""What a sampled layer's weights say about its initialisation."""

from __future__ import annotations

import torch
from torch import Tensor

from cerewrite.ops.modules import Geometry

_DEFAULT_GAIN = 1 / 3
"""fan_in * Var[W] of nn.Linear's and nn.Conv's own reset_parameters: uniform, a = sqrt(5)."""


def gain_of(weight: Tensor, geometry: Geometry) -> float:
    """``fan_in * E[W^2]``, read from the weights or, on meta, from the stock initialisation."""
    if weight.is_meta:
        return _DEFAULT_GAIN
    weight = weight.detach().abs() if weight.is_complex() else weight.detach()
    precise = torch.promote_types(weight.dtype, torch.float32)
    norm = float(torch.linalg.vector_norm(weight, dtype=precise))
    fan_in = geometry.in_channels * geometry.kernel // geometry.groups
    return fan_in * norm * norm / weight.numel()


def bias_variance_of(bias: Tensor | None, geometry: Geometry) -> float:
    """Mean square of the biases, 0 without; on meta that of the stock initialisation."""
    if bias is None:
        return 0.0
    if bias.is_meta:
        return _DEFAULT_GAIN * geometry.groups / (geometry.in_channels * geometry.kernel)
    return float(bias.detach().abs().double().pow(2).mean())
