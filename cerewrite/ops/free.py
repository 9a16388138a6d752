"""Free parameters along the channels: layer scales, tokens, embeddings of positions."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from cerewrite.errors import RewriteError
from cerewrite.nn.parameter_module import ParameterModule, channel_axis
from cerewrite.ops.base import FAMILIES, register
from cerewrite.ops.cases import Case, module_case
from cerewrite.ops.modules import ResizableModule
from cerewrite.ops.resizing import part, resampled, sampled_channels


@register
class FreeParameter(ResizableModule):
    """A layer scale: a parameter of the model's own with one value per channel.

    The sum or product that reads it follows its channels and moments.
    """

    name = "free_parameter"
    modules = (ParameterModule,)
    cases: ClassVar[tuple[Case, ...]] = (
        module_case(lambda: ParameterModule(nn.Parameter(torch.randn(1, 3, 4)))),
        module_case(lambda: ParameterModule(nn.Parameter(torch.ones(4, 1)))),
    )

    def axis_of(self, shape: tuple[int, ...]) -> int | None:
        """The axis of the channels of a parameter of that shape; None where it has none."""
        return channel_axis(shape)

    def held(self, module: nn.Module) -> tuple[nn.Parameter, int]:
        """The parameter that a module holds, and the axis of its channels."""
        if not isinstance(module, ParameterModule) or type(module.value) is not nn.Parameter:
            raise RewriteError(
                f"a {type(module).__name__} is no free parameter", advice="make the plan again"
            )
        axis = self.axis_of(tuple(module.value.shape))
        if axis is None:
            raise RewriteError(
                f"a parameter of shape {list(module.value.shape)} has no single channel axis",
                advice="make the plan again for this model",
            )
        return module.value, axis

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        """With one value per channel it is a sample of them (`resampled`).

        With several (one per position), the original's channels are repeated from the first on,
        which keeps their spread.
        """
        parameter, axis = self.held(module)
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
        parameter, axis = self.held(module)
        own = part(index, parameter.shape[axis] // multiplicity)
        return _like(parameter, parameter.narrow(axis, own.start, own.stop - own.start))


@register
class FreeParameterAtFront(FreeParameter):
    """A parameter whose channels lie on its first axis, one table each."""

    name = "free_parameter_at_front"
    cases = (module_case(lambda: ParameterModule(nn.Parameter(torch.randn(3, 4, 5)))),)

    @override
    def axis_of(self, shape: tuple[int, ...]) -> int | None:
        return 0


@register
class FreeParameterAtEnd(FreeParameter):
    """A parameter whose channels lie on its last axis: maps of positions, channels last."""

    name = "free_parameter_at_end"
    cases = (module_case(lambda: ParameterModule(nn.Parameter(torch.randn(1, 3, 4, 5)))),)

    @override
    def axis_of(self, shape: tuple[int, ...]) -> int | None:
        return len(shape) - 1


def free_rule(shape: tuple[int, ...], axis: int) -> str | None:
    """The rule of parameters of that shape whose channels lie on that axis; None if there is none.

    Example:
        >>> free_rule((1, 8, 7, 7), 1), free_rule((1, 7, 7, 8), 3), free_rule((2, 7, 8, 9), 1)
        ('free_parameter', 'free_parameter_at_end', None)
    """
    rules = (rule for rule in FAMILIES.values() if isinstance(rule, FreeParameter))
    return next((rule.name for rule in rules if rule.axis_of(shape) == axis), None)


def _like(old: nn.Parameter, values: Tensor) -> ParameterModule:
    copied = values.detach().to(old.dtype).clone()
    return ParameterModule(nn.Parameter(copied, requires_grad=old.requires_grad))
