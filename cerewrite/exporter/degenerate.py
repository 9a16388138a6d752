"""Where parity would prove nothing: weights of zero, outputs that no input changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cerewrite.errors import ExportError
from cerewrite.exporter.inputs import ExampleInputs, call, named_tensors
from cerewrite.exporter.reasons import reason
from cerewrite.rewriting.record import copy_sharing_record
from cerewrite.runtime.modes import undisturbed

NEAR_ZERO = 1e-3
"""A weight tensor nowhere larger than this hides whatever it multiplies."""


def degenerate_parameters(model: nn.Module, example: ExampleInputs, seed: int) -> str:
    """Why parity on the model as it stands would be vacuous, at least in part; else ""."""
    if hidden := hidden_weights(model):
        more = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
        return f"{hidden[0]}{more} near zero"
    if silent := silent_outputs(model, example, seed):
        return f"{', '.join(silent)} does not change with the input"
    return ""


def silent_outputs(model: nn.Module, example: ExampleInputs, seed: int) -> tuple[str, ...]:
    """Names of the outputs that two random inputs do not change: parity on them says nothing."""
    draws = [example.drawn(2, seed + shift) for shift in (101, 202)]
    with undisturbed(model):
        pair = [named_tensors(call(model, draw), example.tensor_names()) for draw in draws]
    return tuple(
        name
        for (name, left), (_, right) in zip(*pair, strict=True)
        if left.shape == right.shape and bool(((left == right) | left.isnan()).all())
    )


def hidden_weights(model: nn.Module) -> tuple[str, ...]:
    """Names of floating-point parameters, biases aside, that are zero or nearly so throughout."""
    return tuple(
        name
        for name, parameter in model.named_parameters()
        if not name.endswith("bias") and _near_zero(parameter)
    )


def perturbed(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose near-zero parameters are redrawn, ``N(0, 1 / fan_in)``.

    It shares all other parameters with the model, so it costs little memory.

    Raises:
        ExportError: if the model cannot be copied.
    """
    sound = {id(p): p for p in model.parameters() if not _near_zero(p)}
    try:
        twin = copy_sharing_record(model, sound)
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} has zero weights and cannot be copied to be checked with "
            f"others: {reason(error)}",
            advice="export it after some training, or with weights that are not zero",
        ) from error
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            if id(parameter) not in sound:
                spread = math.prod(parameter.shape[1:]) ** -0.5
                parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return twin


def _near_zero(parameter: Tensor) -> bool:
    if not parameter.is_floating_point() or parameter.numel() == 0:
        return False
    return float(parameter.detach().abs().max()) <= NEAR_ZERO
