"""A user's own module, called on each member's features by themselves."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call


class MemberForward(nn.Module):
    """Calls a module over the last axis once per member: on ``[..., members, features / members]``.

    Its parameters ``[features]`` are handed over as ``[members, features / members]``, so that
    what the module multiplies and adds broadcasts over the members, and a mean over the last axis
    is a member's own.

    Args:
        module: a module whose forward works along the last axis; its parameters, one setting per
            feature of all members together, become this one's.
        members: number of members, at least 1.

    Shape:
        input and output ``[..., features]``.

    Example:
        >>> x = torch.tensor([[3.0, 3.0, -5.0, 5.0]])
        >>> MemberForward(nn.RMSNorm(2, eps=0.0, elementwise_affine=False), members=2)(x).tolist()
        [[1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(self, module: nn.Module, members: int) -> None:
        super().__init__()
        self.members = members
        for name, parameter in module._parameters.items():
            self.register_parameter(name, parameter)
        bare = copy.copy(module)
        bare._parameters = {  # values come from here at every call
            name: None if p is None else nn.Parameter(p.detach().new_empty(0), p.requires_grad)
            for name, p in module._parameters.items()
        }
        self._bare = (bare,)  # in a tuple, so that it is no module of the model

    @property
    def bare(self) -> nn.Module:
        """The module that is called, without its values."""
        return self._bare[0]

    def forward(self, input: Tensor) -> Tensor:
        """Call the module on each member's features."""
        shape = (self.members, -1)
        own = {name: torch.unflatten(p, 0, shape) for name, p in self.named_parameters()}
        output: Tensor = functional_call(self.bare, own, (torch.unflatten(input, -1, shape),))
        return output.flatten(-2)

    def extra_repr(self) -> str:
        """What is called, for ``repr``."""
        return f"{type(self.bare).__name__}, members={self.members}"
