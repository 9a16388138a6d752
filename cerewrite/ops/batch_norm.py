"""Batch and instance norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.norms import normalise_batch
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import register
from cerewrite.ops.cases import module_case
from cerewrite.ops.norms import ChannelNorm
from cerewrite.ops.own_forwards import expect, has_own_forward, per_channel_copy
from cerewrite.ops.resizing import dtype_of, fill, own_settings, part, slice_channels
from cerewrite.runtime.modes import BATCH_NORMS

_INSTANCE_NORMS: tuple[type[nn.BatchNorm2d], ...] = (
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)  # type: ignore[assignment]  # their common base is private to torch
_KINDS = (*BATCH_NORMS, *_INSTANCE_NORMS)


@register
class BatchNorm(ChannelNorm):
    """Batch and instance norms: one mean, variance, scale and shift per channel."""

    name = "batch_norm"
    forwards = True
    modules = (*BATCH_NORMS[:3], *_INSTANCE_NORMS)
    built = (_NormBase,)
    targets = frozenset(
        {"batch_norm", "instance_norm", "_native_batch_norm_legit", "native_batch_norm"}
    )
    leaves = (
        *((kind, "batch_norm") for kind in BATCH_NORMS[:3]),
        *((kind, "instance_norm") for kind in _INSTANCE_NORMS),
    )
    cases = (
        module_case(lambda: nn.BatchNorm1d(4), (3, 4)),
        module_case(lambda: nn.BatchNorm2d(4, affine=False), (3, 4, 2, 2)),
        module_case(lambda: nn.BatchNorm3d(4, track_running_stats=False), (2, 4, 2, 2, 2)),
        module_case(lambda: nn.InstanceNorm2d(4, affine=True), (3, 4, 3, 3)),
    )

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return normalise_batch(context, op, inputs[0])

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        norm = expect(module, _KINDS, forwards=True)
        size = multiplicity * width
        return fill(_batch_norm_like(norm, size), norm, size, multiplicity)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        norm = expect(module, _KINDS, forwards=True)
        width = norm.num_features // multiplicity
        own = own_settings(norm, part(index, width))
        return slice_channels(_batch_norm_like(norm, width), norm, **own)


def _batch_norm_like(norm: nn.BatchNorm2d, size: int) -> nn.BatchNorm2d:
    if has_own_forward(norm, _KINDS):
        return per_channel_copy(norm, size, num_features=size)
    kind = next(kind for kind in _KINDS if isinstance(norm, kind))
    options: dict[str, Any] = {
        "eps": norm.eps,
        "momentum": norm.momentum,
        "affine": norm.affine,
        "track_running_stats": norm.track_running_stats,
        "dtype": dtype_of(norm),
    }
    return kind(size, device="meta", **options)
