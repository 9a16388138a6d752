"""A module's face for a free parameter."""

from __future__ import annotations

from torch import nn


class ParameterModule(nn.Module):
    """Stands for a parameter that belongs to no layer of its own (a layer scale).

    Passes read, resize and swap it like a module; the model keeps the parameter alone, under
    the name that it has.

    Args:
        value: the parameter, shared with its owner.
    """

    def __init__(self, value: nn.Parameter) -> None:
        super().__init__()
        self.value = value


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Where the channels of a free parameter lie.

    The one axis that is longer than 1; of several, axis 1 of images ``[1, channels, *positions]``
    and the last of tokens ``[1, positions, channels]``.

    Returns:
        None for other shapes.

    Example:
        >>> [channel_axis(s) for s in ((1, 8, 1, 1), (1, 8, 7, 7), (1, 49, 8), (9, 9))]
        [1, 1, 2, None]
    """
    long = [axis for axis, size in enumerate(shape) if size > 1]
    if len(long) <= 1:
        return long[0] if long else 0
    if len(shape) < 3 or shape[0] != 1:
        return None
    return 2 if len(shape) == 3 else 1


def get_parameter(model: nn.Module, name: str) -> nn.Module:
    """The module of a qualified name, or the parameter of that name, held.

    Raises:
        AttributeError: if there is neither.
    """
    parent, _, child = name.rpartition(".")
    parameter = model.get_submodule(parent)._parameters.get(child)
    return model.get_submodule(name) if parameter is None else ParameterModule(parameter)


def put_parameter(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module, or the parameter that it holds, under a qualified name."""
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    if isinstance(new, ParameterModule):
        owner._parameters[child] = new.value
    else:
        owner._modules[child] = new
