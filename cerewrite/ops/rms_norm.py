"""RMS norms over the channels."""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.nn import MemberRMSNorm
from cerewrite.ops.base import Saved, register
from cerewrite.ops.called_norm import CalledRMSNorm as Called
from cerewrite.ops.cases import module_case
from cerewrite.ops.norms import CalledModule, LastAxisModule, LastAxisNorm


class _RMSNormModule(LastAxisModule):
    """One RMS norm per member."""

    modules = (nn.RMSNorm,)
    built = (MemberRMSNorm,)


@register
class CalledRMSNorm(CalledModule):
    """An RMS norm that a module of the user's own calls as a function."""

    name = "called_rms_norm"
    modules = (Called,)
    built = (MemberRMSNorm, nn.RMSNorm)
    stock = _RMSNormModule()
    cases = (module_case(lambda: Called(4), (3, 4)),)


@register
class RMSNorm(_RMSNormModule, LastAxisNorm):
    """RMS norm over the channels: one norm per member in an ensemble."""

    name = "rms_norm"
    centred = False
    targets = frozenset({"rms_norm"})
    leaves = ((nn.RMSNorm, "rms_norm"),)
    figures = 1
    called = CalledRMSNorm()
    cases = (module_case(lambda: nn.RMSNorm(4), (3, 4)),)

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        """The normalised input is a tensor of its own."""
        return replace(super().saved(op, module), own=op.numel)
