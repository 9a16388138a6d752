"""Modules' faces for free parameters, and for numbers that modules hold."""

from __future__ import annotations

from typing import Any

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


class NumberModule(nn.Module):
    """Stands for an integer attribute of a module, or a field of an object that it holds.

    Passes read, resize and swap it like a module; the model keeps the number alone.

    Args:
        value: the number.
    """

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Where the channels of a free parameter lie.

    The one axis that is longer than 1; of several, axis 1 of images ``[1, channels, *positions]``,
    the last of tokens ``[1, positions, channels]`` and of tables ``[rows, channels]``.

    Returns:
        None for other shapes.

    Example:
        >>> [channel_axis(s) for s in ((1, 8, 1, 1), (1, 8, 7, 7), (1, 49, 8), (9, 8), (9, 9, 2))]
        [1, 1, 2, 1, None]
    """
    long = [axis for axis, size in enumerate(shape) if size > 1]
    if len(long) <= 1:
        return long[0] if long else 0
    if len(shape) == 2:
        return 1
    if shape[0] != 1:
        return None
    return 2 if len(shape) == 3 else 1


def get_parameter(model: nn.Module, name: str) -> nn.Module:
    """The module of a qualified name, or the parameter or integer of that name, held.

    Raises:
        AttributeError: if there is none of these.
    """
    parent, child = _owner(model, name)
    if isinstance(parent, nn.Module):
        parameter = parent._parameters.get(child)
        if parameter is not None:
            return ParameterModule(parameter)
    number = vars(parent).get(child)
    return NumberModule(number) if type(number) is int else model.get_submodule(name)


def put_parameter(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module, or the parameter or integer that it holds, under a qualified name."""
    if isinstance(new, NumberModule):
        parent, child = _owner(model, name)
        vars(parent)[child] = new.value
        return
    path, _, child = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(new, ParameterModule):
        owner._parameters[child] = new.value
    else:
        owner._modules[child] = new


def _owner(model: nn.Module, name: str) -> tuple[Any, str]:
    """What holds a parameter, a module or a number, and its name there."""
    path, _, child = name.rpartition(".")
    owner: Any = model
    for part in path.split(".") if path else ():
        owner = getattr(owner, part)
    return owner, child
