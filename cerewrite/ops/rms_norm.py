"""RMS norms over the channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.nn import MemberRMSNorm
from cerewrite.ops.base import Saved, register
from cerewrite.ops.cases import Case, module_case
from cerewrite.ops.norms import LastAxisNorm
from cerewrite.ops.own_forwards import expect
from cerewrite.ops.resizing import (
    check_size,
    dtype_of,
    empty_like,
    fill,
    own_settings,
    part,
    slice_channels,
)


@register
class RMSNorm(LastAxisNorm):
    """RMS norm over the channels: one norm per member in an ensemble."""

    name = "rms_norm"
    centred = False
    modules = (nn.RMSNorm,)
    built = (MemberRMSNorm,)
    targets = frozenset({"rms_norm"})
    figures = 1

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        """The normalised input is a tensor of its own."""
        return replace(super().saved(op, module), own=op.numel)

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        norm = expect(module, (nn.RMSNorm,))
        check_size(norm, "normalised axes", len(norm.normalized_shape), 1)
        size = multiplicity * width
        options: dict[str, Any] = {"device": "meta", "dtype": dtype_of(norm)}
        sizes = (size,) if multiplicity == 1 else (size, multiplicity)
        kind: type[Any] = nn.RMSNorm if multiplicity == 1 else MemberRMSNorm
        resized: nn.Module = kind(*sizes, norm.eps, norm.elementwise_affine, **options)
        empty_like(resized, norm)
        fill(resized, norm, size)
        return resized

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        if isinstance(module, MemberRMSNorm):
            width, eps = module.features // multiplicity, module.eps
        else:
            norm = expect(module, (nn.RMSNorm,))
            width, eps = norm.normalized_shape[0] // multiplicity, norm.eps
        settings = own_settings(module, part(index, width))
        options: dict[str, Any] = {"device": "meta", "dtype": dtype_of(module)}
        narrow = nn.RMSNorm(width, eps, "weight" in settings, **options)
        return slice_channels(narrow, module, **settings)

    @override
    def cases(self) -> tuple[Case, ...]:
        return (module_case(lambda: nn.RMSNorm(4), (3, 4)),)
