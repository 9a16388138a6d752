"""A user's own module, called on each member's features by themselves."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call


class MemberForward(nn.Module):
    """Calls a module over one axis, for every member by itself.

    Along the last axis that is one call on ``[..., members, features / members]``: its parameters ``[features]`` are handed over as ``[members, features / members]``, so that
    what the module multiplies and adds broadcasts over the members, and a mean over the last axis
    is a member's own. Along axis 1 it is called once per member, on its channels. What the
    module's children do, unit by unit, is done to all members together, after that.

    Args:
        module: a module whose forward works along that axis, and then calls its children in
            order; its parameters, one setting per feature of all members together, and its
            children become this one's.
        members: number of members, at least 1.
        axis: the axis of the features: the last one, -1, or 1.

    Shape:
        input and output ``[..., features]``, or ``[batch, features, ...]``.

    Example:
        >>> x = torch.tensor([[3.0, 3.0, -5.0, 5.0]])
        >>> MemberForward(nn.RMSNorm(2, eps=0.0, elementwise_affine=False), members=2)(x).tolist()
        [[1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(self, module: nn.Module, members: int, axis: int = -1) -> None:
        super().__init__()
        self.members, self.axis = members, axis
        for name, parameter in module._parameters.items():
            self.register_parameter(name, parameter)
        bare = copy.copy(module)
        bare._parameters = {  # values come from here at every call
            name: None if p is None else nn.Parameter(p.detach().new_empty(0), p.requires_grad)
            for name, p in module._parameters.items()
        }
        bare._modules = {name: nn.Identity() for name, _ in module.named_children()}
        for name, child in module.named_children():
            self.add_module(name, child)
        self._bare = (bare,)  # in a tuple, so that it is no module of the model

    @property
    def bare(self) -> nn.Module:
        """The module that is called, without its values."""
        return self._bare[0]

    def forward(self, input: Tensor) -> Tensor:
        """Call the module on each member's features."""
        output = self._last(input) if self.axis == -1 else self._each(input)
        for child in self.children():
            output = child(output)
        return output

    def _last(self, input: Tensor) -> Tensor:
        shape = (self.members, -1)
        own = {
            n: torch.unflatten(p, 0, shape) for n, p in self._parameters.items() if p is not None
        }
        output: Tensor = functional_call(self.bare, own, (torch.unflatten(input, -1, shape),))
        return output.flatten(-2)

    def _each(self, input: Tensor) -> Tensor:
        named = {n: p.chunk(self.members) for n, p in self._parameters.items() if p is not None}
        outputs = [
            functional_call(self.bare, {n: p[i] for n, p in named.items()}, (part,))
            for i, part in enumerate(input.chunk(self.members, self.axis))
        ]
        return torch.cat(outputs, self.axis)

    def extra_repr(self) -> str:
        """What is called, for ``repr``."""
        return f"{type(self.bare).__name__}, members={self.members}"
