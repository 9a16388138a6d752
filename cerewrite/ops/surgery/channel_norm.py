"""Layer norms over the channels of images: subclasses that permute around the stock norm."""

from __future__ import annotations

from torch import nn

from cerewrite.errors import RewriteError
from cerewrite.nn import ChannelLayerNorm
from cerewrite.ops.surgery.keeping import check_size, empty_like, fill, part, slice_channels


def resize_channel_norm(module: nn.Module, multiplicity: int, width: int) -> nn.Module:
    """One layer norm per member over its own channels on axis 1.

    Args:
        module: a `torch.nn.LayerNorm` whose forward permutes channels last and back, as the
            tracer has seen.
        multiplicity: members.
        width: channels of one member.

    Raises:
        RewriteError: if the module is no layer norm over one axis.
    """
    if not isinstance(module, nn.LayerNorm):
        raise RewriteError(
            f"a {type(module).__name__} is no layer norm", advice="make the plan again"
        )
    check_size(module, "normalised axes", len(module.normalized_shape), 1)
    resized = _norm(module, multiplicity * width, multiplicity, module.eps)
    empty_like(resized, module)
    fill(resized, module, multiplicity * width)
    return resized


def channel_norm_member(module: nn.Module, index: int, multiplicity: int) -> nn.Module:
    """The norm of member ``index`` of a resized one."""
    assert isinstance(module, ChannelLayerNorm) and module.eps is not None
    width = module.features // multiplicity
    own = {name: tensor[part(index, width)] for name, tensor in module.named_parameters()}
    return slice_channels(_norm(module, width, 1, module.eps), module, **own)


def _norm(module: nn.Module, size: int, members: int, eps: float) -> ChannelLayerNorm:
    parameters = dict(module.named_parameters())
    return ChannelLayerNorm(
        size,
        members,
        eps,
        elementwise_affine="weight" in parameters,
        bias="bias" in parameters,
        device="meta",
        dtype=parameters["weight"].dtype if parameters else None,
    )
