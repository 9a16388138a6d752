"""A warm start, measured: how far the outputs are from the original's, before any training."""

from __future__ import annotations

from torch import nn

from cerewrite.ir import Check
from cerewrite.ir.inputs import Inputs
from cerewrite.rewriting.transfer.calibration import outputs


def output_error(original: nn.Module, other: nn.Module, inputs: Inputs) -> float:
    """``|g - f| / |f|`` over all outputs and examples, in evaluation mode; dimensionless.

    Args:
        original: f.
        other: g, of the same signature.
        inputs: a batch of inputs.

    Raises:
        UsageError: if a model does not take the inputs.

    Example:
        >>> import torch
        >>> double = nn.Linear(3, 2, bias=False)
        >>> single = nn.Linear(3, 2, bias=False)
        >>> double.weight = nn.Parameter(2 * single.weight)
        >>> round(output_error(double, single, (torch.ones(4, 3),)), 6)
        0.5
    """
    wanted = outputs(original, inputs)
    found = outputs(other, inputs)
    return float((found - wanted).norm() / wanted.norm())


def check_transfer(
    original: nn.Module, transferred: nn.Module, redrawn: nn.Module, inputs: Inputs
) -> Check:
    """A warm start is nearer to the original than fresh weights are.

    Args:
        original: the original.
        transferred: the ensemble with the original's weights.
        redrawn: the same ensemble, drawn anew.
        inputs: inputs that the fit has not seen, as far as there are any.
    """
    error = output_error(original, transferred, inputs)
    fresh = output_error(original, redrawn, inputs)
    detail = f"relative output error {error:.3g} before any training; drawn anew {fresh:.3g}"
    return Check("warm start", error < fresh, detail, error, fresh)
