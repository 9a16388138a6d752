"""Free parameters along the channels: layer scales, tokens, embeddings of positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from cerewrite.errors import RewriteError
from cerewrite.nn.parameter_module import ParameterModule, channel_axis
from cerewrite.ops.base import register
from cerewrite.ops.cases import module_case
from cerewrite.ops.modules import ResizableModule
from cerewrite.ops.resizing import part, resampled, sampled_channels


@register
class FreeParameter(ResizableModule):
    """A layer scale: a parameter of the model's own with one value per channel.

    The sum or product that reads it follows its channels and moments.
    """

    name = "free_parameter"
    modules = (ParameterModule,)
    cases = (
        module_case(lambda: ParameterModule(nn.Parameter(torch.randn(1, 3, 4)))),
        module_case(lambda: ParameterModule(nn.Parameter(torch.ones(4, 1)))),
    )

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        """With one value per channel it is a sample of them (`resampled`).

        With several (one per position), the original's channels are repeated from the first on,
        which keeps their spread.
        """
        parameter, axis = _held(module)
        size = multiplicity * width
        with torch.no_grad():
            if parameter.numel() == parameter.shape[axis] and not parameter.is_meta:
                shape = [size if i == axis else 1 for i in range(parameter.dim())]
                values = parameter.detach().flatten()
                channels = sampled_channels(values, size)
                return _like(parameter, resampled(values, channels, multiplicity).reshape(shape))
            index = torch.arange(size, device=parameter.device) % parameter.shape[axis]
            return _like(parameter, parameter.index_select(axis, index))

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        parameter, axis = _held(module)
        own = part(index, parameter.shape[axis] // multiplicity)
        return _like(parameter, parameter.narrow(axis, own.start, own.stop - own.start))


def _held(module: nn.Module) -> tuple[nn.Parameter, int]:
    """The parameter and the axis of its channels."""
    if not isinstance(module, ParameterModule) or type(module.value) is not nn.Parameter:
        raise RewriteError(
            f"a {type(module).__name__} is no free parameter", advice="make the plan again"
        )
    axis = channel_axis(tuple(module.value.shape))
    if axis is None:
        raise RewriteError(
            f"a parameter of shape {list(module.value.shape)} has no single channel axis",
            advice="make the plan again for this model",
        )
    return module.value, axis


def _like(old: nn.Parameter, values: Tensor) -> ParameterModule:
    copied = values.detach().to(old.dtype).clone()
    return ParameterModule(nn.Parameter(copied, requires_grad=old.requires_grad))
