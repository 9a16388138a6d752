"""Modules of the user's own that norm along the channels: called once per member."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from cerewrite.errors import RewriteError
from cerewrite.ir import Op
from cerewrite.nn.member_forward import MemberForward
from cerewrite.ops.base import Saved, register
from cerewrite.ops.cases import Case, module_case
from cerewrite.ops.members import MemberRMS
from cerewrite.ops.modules import ResizableModule
from cerewrite.ops.resizing import part, resized


class HandNorm(nn.Module):
    """``w x / sqrt(mean(x^2))``: a case of `MemberForwards`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """The norm."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class HandMapNorm(HandNorm):
    """The same over axis 1 of maps, and an activation: a case of `MemberForwardsOfMaps`."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.act = nn.ReLU()

    @override
    def forward(self, x: Tensor) -> Tensor:
        root = torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)
        output: Tensor = self.act(x * root * self.weight.reshape(1, -1, 1, 1))
        return output


@register
class MemberForwards(ResizableModule):
    """A norm over the last axis that a module writes by hand: its own forward, member by member."""

    name = "member_forward"
    modules = (HandNorm,)
    built = (MemberForward,)
    axis = -1
    least = 2
    mixes = True
    cases = (module_case(lambda: HandNorm(4), (3, 4)),)

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        if module._buffers or _settings(module) != list(module.named_parameters()):
            raise RewriteError(
                f"a {type(module).__name__} holds more than settings per channel",
                advice="make the plan again",
            )
        own = {n: _with(p, resized(p, multiplicity * width)) for n, p in _settings(module)}
        new = _copy(module, own)
        if multiplicity == 1:
            return new
        return MemberForward(new, multiplicity, self.axis).train(module.training)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        own = {
            n: _with(p, p.detach()[part(index, len(p) // multiplicity)].clone())
            for n, p in _settings(module)
        }
        if not isinstance(module, MemberForward):
            return _copy(module, own)
        new = _copy(module.bare, own)
        new._modules.update(copy.deepcopy(module._modules))
        return new


@register
class MemberForwardsOfMaps(MemberForwards):
    """A norm over axis 1 that a module writes by hand."""

    name = "member_forward_of_maps"
    modules = (HandMapNorm,)
    axis = 1
    cases = (module_case(lambda: HandMapNorm(4), (3, 4, 2, 2)),)


def _settings(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(module.named_parameters(recurse=False))


def _with(old: nn.Parameter, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=old.requires_grad)


def _copy(module: nn.Module, own: dict[str, nn.Parameter]) -> nn.Module:
    """A copy with other parameters."""
    held = {id(parameter): parameter for parameter in module.parameters()}
    new = copy.deepcopy(module, held)
    new._parameters.update(own)
    return new


@register
class MemberForwardOp(MemberRMS):
    """A member's own norm, as a rewritten model calls it."""

    name = "member_forward_op"
    targets = frozenset({"member_forward_op"})
    whole: ClassVar[tuple[type[nn.Module], ...]] = (MemberForward,)
    cases: ClassVar[tuple[Case, ...]] = (
        module_case(lambda: MemberForward(HandNorm(6), 2), (3, 6)),
        module_case(lambda: MemberForward(HandMapNorm(6), 2, 1), (3, 6, 2, 2)),
    )

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        """What it norms, one figure per row and member, and the normed input for its scale."""
        assert isinstance(module, MemberForward)
        rows = op.numel // op.shape[module.axis]
        return Saved(reads=True, own=op.numel, statistics=rows * module.members)
