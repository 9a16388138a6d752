"""Norms and PReLU in an ensemble: each member is normalised by itself.

Per-channel settings (scale, shift, running statistics, slopes) keep their constant where they
are constant over the channels, and their mean where they are not.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cerewrite.nn import MemberLayerNorm, MemberRMSNorm
from cerewrite.ops.surgery.keeping import check_size, empty_like, expect, fill, part, slice_channels
from cerewrite.ops.surgery.resized_copy import has_own_forward, per_channel_twin
from cerewrite.runtime.modes import BATCH_NORMS

_INSTANCE_NORMS: tuple[type[nn.BatchNorm2d], ...] = (
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)  # type: ignore[assignment]  # their common base is private to torch
_KINDS = (*BATCH_NORMS, *_INSTANCE_NORMS)


def resize_batch_norm(module: nn.Module, multiplicity: int, width: int) -> nn.Module:
    """A batch or instance norm for ``multiplicity`` members of ``width`` channels.

    Raises:
        RewriteError: if the module is no plain batch or instance norm.
    """
    norm = expect(module, _KINDS, forwards=True)
    size = multiplicity * width
    resized = empty_like(_batch_norm_like(norm, size), norm)
    fill(resized, norm, size)
    return resized


def batch_norm_member(module: nn.Module, index: int, multiplicity: int) -> nn.Module:
    """The norm of member ``index`` of a resized batch or instance norm."""
    norm = expect(module, _KINDS, forwards=True)
    width = norm.num_features // multiplicity
    return slice_channels(
        _batch_norm_like(norm, width), norm, **_own_settings(norm, part(index, width))
    )


def _batch_norm_like(norm: nn.BatchNorm2d, size: int) -> nn.BatchNorm2d:
    if has_own_forward(norm, _KINDS):
        return per_channel_twin(norm, size, num_features=size)
    kind = next(kind for kind in _KINDS if isinstance(norm, kind))
    options: dict[str, Any] = {
        "eps": norm.eps,
        "momentum": norm.momentum,
        "affine": norm.affine,
        "track_running_stats": norm.track_running_stats,
        "dtype": _dtype(norm),
    }
    return kind(size, device="meta", **options)


def resize_group_norm(module: nn.Module, multiplicity: int, width: int) -> nn.Module:
    """A group norm in which every member has whole groups of its own.

    A member gets as many groups as divide its channels, at most the original's number, and
    none smaller than the original's (a group of one channel at one position would be zero).

    Raises:
        RewriteError: if the module is no plain group norm.
    """
    norm = expect(module, (nn.GroupNorm,), forwards=True)
    size = multiplicity * width
    resized = empty_like(_group_norm_like(norm, multiplicity * _groups(norm, width), size), norm)
    fill(resized, norm, size)
    return resized


def _group_norm_like(norm: nn.GroupNorm, groups: int, size: int) -> nn.GroupNorm:
    if has_own_forward(norm, (nn.GroupNorm,)):
        return per_channel_twin(norm, size, num_channels=size, num_groups=groups)
    return nn.GroupNorm(groups, size, norm.eps, norm.affine, device="meta", dtype=_dtype(norm))


def _groups(norm: nn.GroupNorm, width: int) -> int:
    """Groups of one member of ``width`` channels."""
    smallest = norm.num_channels // norm.num_groups
    fitting = (
        g for g in range(norm.num_groups, 0, -1) if width % g == 0 and width // g >= smallest
    )
    return next(fitting, 1)


def group_norm_member(module: nn.Module, index: int, multiplicity: int) -> nn.Module:
    """The norm of member ``index`` of a resized group norm."""
    norm = expect(module, (nn.GroupNorm,), forwards=True)
    check_size(norm, "groups left over", norm.num_groups % multiplicity, 0)
    width = norm.num_channels // multiplicity
    groups = norm.num_groups // multiplicity
    narrow = _group_norm_like(norm, groups, width)
    return slice_channels(narrow, norm, **_own_settings(norm, part(index, width)))


def resize_layer_norm(module: nn.Module, multiplicity: int, width: int) -> nn.Module:
    """One layer norm per member over its own channels on the last axis.

    Raises:
        RewriteError: if the module is no plain layer norm over the last axis alone.
    """
    return _layer_norms(expect(module, (nn.LayerNorm,)), multiplicity, width)


def resize_own_layer_norm(module: nn.Module, multiplicity: int, width: int) -> nn.Module:
    """Likewise for a subclass whose forward, as the trace has shown, is one layer norm.

    Raises:
        RewriteError: if the module is no layer norm over the last axis alone.
    """
    norm = expect(module, (nn.LayerNorm,), forwards=True)
    return _layer_norms(norm, multiplicity, width)


def _layer_norms(norm: nn.LayerNorm, multiplicity: int, width: int) -> nn.Module:
    check_size(norm, "normalised axes", len(norm.normalized_shape), 1)
    size = multiplicity * width
    options: dict[str, Any] = {"bias": "bias" in dict(norm.named_parameters())}
    options |= {"device": "meta", "dtype": _dtype(norm)}
    resized: nn.Module
    if multiplicity == 1:
        resized = nn.LayerNorm(size, norm.eps, norm.elementwise_affine, **options)
    else:
        resized = MemberLayerNorm(size, multiplicity, norm.eps, norm.elementwise_affine, **options)
    empty_like(resized, norm)
    fill(resized, norm, size)
    return resized


def layer_norm_member(module: nn.Module, index: int, multiplicity: int) -> nn.Module:
    """The norm of member ``index`` of a resized layer norm."""
    if isinstance(module, MemberLayerNorm):
        width, eps = module.features // multiplicity, module.eps or 0.0
    else:
        norm = expect(module, (nn.LayerNorm,))
        width, eps = norm.normalized_shape[0] // multiplicity, norm.eps
    settings = _own_settings(module, part(index, width))
    narrow = nn.LayerNorm(
        width,
        eps,
        elementwise_affine="weight" in settings,
        bias="bias" in settings,
        device="meta",
        dtype=_dtype(module),
    )
    return slice_channels(narrow, module, **settings)


def resize_rms_norm(module: nn.Module, multiplicity: int, width: int) -> nn.Module:
    """One RMS norm per member over its own channels on the last axis.

    Raises:
        RewriteError: if the module is no plain RMS norm over the last axis alone.
    """
    norm = expect(module, (nn.RMSNorm,))
    check_size(norm, "normalised axes", len(norm.normalized_shape), 1)
    size = multiplicity * width
    options: dict[str, Any] = {"device": "meta", "dtype": _dtype(norm)}
    resized: nn.Module
    if multiplicity == 1:
        resized = nn.RMSNorm(size, norm.eps, norm.elementwise_affine, **options)
    else:
        resized = MemberRMSNorm(size, multiplicity, norm.eps, norm.elementwise_affine, **options)
    empty_like(resized, norm)
    fill(resized, norm, size)
    return resized


def rms_norm_member(module: nn.Module, index: int, multiplicity: int) -> nn.Module:
    """The norm of member ``index`` of a resized RMS norm."""
    if isinstance(module, MemberRMSNorm):
        width, eps = module.features // multiplicity, module.eps
    else:
        norm = expect(module, (nn.RMSNorm,))
        width, eps = norm.normalized_shape[0] // multiplicity, norm.eps
    settings = _own_settings(module, part(index, width))
    narrow = nn.RMSNorm(width, eps, "weight" in settings, device="meta", dtype=_dtype(module))
    return slice_channels(narrow, module, **settings)


def resize_prelu(module: nn.Module, multiplicity: int, width: int) -> nn.Module:
    """A PReLU for all members' channels; a single shared slope stays single.

    Raises:
        RewriteError: if the module is no plain PReLU.
    """
    prelu = expect(module, (nn.PReLU,))
    size = multiplicity * width if prelu.num_parameters > 1 else 1
    resized = empty_like(nn.PReLU(size, device="meta", dtype=_dtype(prelu)), prelu)
    fill(resized, prelu, size)
    return resized


def prelu_member(module: nn.Module, index: int, multiplicity: int) -> nn.Module:
    """The PReLU of member ``index`` of a resized one."""
    prelu = expect(module, (nn.PReLU,))
    shared = prelu.num_parameters == 1
    width = 1 if shared else prelu.num_parameters // multiplicity
    narrow = nn.PReLU(width, device="meta", dtype=_dtype(prelu))
    return slice_channels(narrow, prelu, weight=prelu.weight[part(0 if shared else index, width)])


def _own_settings(module: nn.Module, own: slice) -> dict[str, Tensor]:
    """A member's share of every per-channel parameter and buffer; scalars whole."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: tensor[own] if tensor.dim() else tensor for name, tensor in tensors.items()}


def _dtype(module: nn.Module) -> Any:
    """The dtype of its parameters, else of its floating-point buffers, else the default."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return None
