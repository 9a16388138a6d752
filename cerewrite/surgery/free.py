"""Free parameters with one value per channel: layer scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError
from cerewrite.nn.held import HeldParameter
from cerewrite.surgery.keeping import part, resized


def _held(module: nn.Module) -> tuple[nn.Parameter, int]:
    """The parameter and the axis of its channels."""
    if not isinstance(module, HeldParameter) or type(module.value) is not nn.Parameter:
        raise RewriteError(
            f"a {type(module).__name__} is no free parameter", advice="make the plan again"
        )
    long = [axis for axis, size in enumerate(module.value.shape) if size > 1]
    if len(long) > 1:
        raise RewriteError(
            f"a parameter of shape {list(module.value.shape)} has no single channel axis",
            advice="make the plan again for this model",
        )
    return module.value, long[0] if long else 0


def _like(old: nn.Parameter, values: Tensor, axis: int) -> HeldParameter:
    shape = [len(values) if i == axis else 1 for i in range(old.dim())]
    copied = values.detach().reshape(shape).to(old.dtype).clone()
    return HeldParameter(nn.Parameter(copied, requires_grad=old.requires_grad))


def resize_free(module: nn.Module, multiplicity: int, width: int) -> nn.Module:
    """The parameter for all members' channels: its constant where it is one, else its mean.

    Raises:
        RewriteError: if it has no single channel axis.
    """
    parameter, axis = _held(module)
    with torch.no_grad():
        return _like(parameter, resized(parameter, multiplicity * width), axis)


def free_member(module: nn.Module, index: int, multiplicity: int) -> nn.Module:
    """The values of member ``index`` of a resized parameter."""
    parameter, axis = _held(module)
    width = parameter.numel() // multiplicity
    return _like(parameter, parameter.flatten()[part(index, width)], axis)
