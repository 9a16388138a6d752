"""A module's face for a free parameter."""

from __future__ import annotations

from torch import nn


class HeldParameter(nn.Module):
    """Stands for a parameter that belongs to no layer of its own (a layer scale).

    Passes read, resize and swap it like a module; the model keeps the parameter alone, under
    the name that it has.

    Args:
        value: the parameter, shared with its owner.
    """

    def __init__(self, value: nn.Parameter) -> None:
        super().__init__()
        self.value = value


def get_held(model: nn.Module, name: str) -> nn.Module:
    """The module of a qualified name, or the parameter of that name, held.

    Raises:
        AttributeError: if there is neither.
    """
    parent, _, child = name.rpartition(".")
    parameter = model.get_submodule(parent)._parameters.get(child)
    return model.get_submodule(name) if parameter is None else HeldParameter(parameter)


def put_held(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module, or the parameter that it holds, under a qualified name."""
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    if isinstance(new, HeldParameter):
        owner._parameters[child] = new.value
    else:
        owner._modules[child] = new
