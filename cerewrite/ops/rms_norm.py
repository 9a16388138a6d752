"""RMS norms over the channels."""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.nn import MemberRMSNorm
from cerewrite.ops.base import Saved, register
from cerewrite.ops.cases import module_case
from cerewrite.ops.norms import LastAxisNorm


@register
class RMSNorm(LastAxisNorm):
    """RMS norm over the channels: one norm per member in an ensemble."""

    name = "rms_norm"
    centred = False
    modules = (nn.RMSNorm,)
    built = (MemberRMSNorm,)
    targets = frozenset({"rms_norm"})
    leaves = ((nn.RMSNorm, "rms_norm"),)
    figures = 1
    cases = (module_case(lambda: nn.RMSNorm(4), (3, 4)),)

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        """The normalised input is a tensor of its own."""
        return replace(super().saved(op, module), own=op.numel)
