"""Modules at other sizes: what is kept of them, how large they become, what a member's part is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError
from cerewrite.ir import RegionLayer

M = TypeVar("M", bound=nn.Module)


def check_size(module: nn.Module, what: str, found: int, recorded: int) -> None:
    """Refuse a module that is not the one the plan was made for."""
    if found != recorded:
        raise RewriteError(
            f"a {type(module).__name__} has {found} {what}, the plan says {recorded}",
            advice="make the plan again for this model",
        )


def empty_like(new: M, old: nn.Module) -> M:
    """Move a leaf module built on the meta device to where ``old`` is, parameters not drawn.

    They are filled with NaN, so that a forgotten draw shows itself. ``requires_grad`` and the
    train/eval flag are ``old``'s.
    """
    reference = next(chain(old.parameters(), old.buffers()), None)
    device = torch.device("meta") if reference is None else reference.device
    for name, parameter in new._parameters.items():
        if parameter is not None:
            source = old._parameters.get(name)
            needs_grad = parameter.requires_grad if source is None else source.requires_grad
            values = torch.full_like(parameter.detach(), torch.nan, device=device)
            new._parameters[name] = nn.Parameter(values, requires_grad=needs_grad)
    for name, buffer in new._buffers.items():
        if buffer is not None:
            new._buffers[name] = torch.zeros_like(buffer, device=device)
    return new.train(old.training)


GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, are evenly spread over any run of them: a member's channels."""


def sampled_channels(setting: Tensor, size: int) -> Tensor:
    """Which of a setting's channels ``size`` new ones are copies of: a sample of their values.

    Any run of new channels, so every member, has values from the whole range: channel i takes
    quantile ``i GOLDEN mod 1`` of the original's values.
    """
    quantile = torch.arange(size, dtype=torch.float64).add(0.5).mul(GOLDEN).remainder(1)
    position = quantile.mul(setting.numel()).long().to(setting.device)
    return setting.detach().argsort(stable=True)[position]


def resampled(setting: Tensor, channels: Tensor, members: int = 1) -> Tensor:
    """A per-channel parameter at some of its channels, with its mean square in every member.

    The mean square is what a norm's scale or a layer scale multiplies the signal's by
    (docs/theory.md, section 5); an average would let values of both signs cancel.

    Args:
        setting: one value per channel of the original, ``[channels]``.
        channels: whose value each new channel takes; members are contiguous.
        members: how many there are.

    Example:
        >>> new = resampled(torch.tensor([3.0, -4.0]), torch.tensor([0, 0, 1, 0]), members=2)
        >>> [round(value, 4) for value in new.tolist()]
        [3.5355, 3.5355, -4.0, 3.0]
    """
    wide = setting.detach().double()
    if bool((wide == wide[0]).all()):
        return wide[channels]
    taken = wide[channels].reshape(members, -1)
    kept = wide.square().mean().sqrt()
    found = taken.square().mean(1, keepdim=True).sqrt()
    return torch.where(found > 0, taken * (kept / found), kept).flatten()


def resized(statistic: Tensor, size: int) -> Tensor:
    """A running statistic per channel at another size: its constant where it is one, else its mean.

    New channels are drawn anew, so none has the statistics of one of the original's.
    """
    if statistic.is_meta:
        return statistic.new_empty(size)
    first = statistic.detach().flatten()[0]
    constant = bool((statistic == first).all())
    return (first if constant else statistic.detach().mean()).repeat(size)


def fill(new: M, old: nn.Module, size: int, members: int = 1) -> M:
    """A module on meta where ``old`` is, with its per-channel settings at another size.

    Parameters are a sample of the original's values, channel by channel (`resampled`), running
    statistics their average.
    """
    empty_like(new, old)
    sources = dict(old.named_parameters()) | dict(old.named_buffers())
    with torch.no_grad():
        for name, target in new.named_buffers():
            source = sources[name]
            target.copy_(resized(source, size) if source.dim() else source)
        channels: Tensor | None = None
        for name, parameter in new.named_parameters():
            source = sources[name]
            if not source.dim():
                parameter.copy_(source)
            elif not source.is_meta:
                channels = sampled_channels(source, size) if channels is None else channels
                parameter.copy_(resampled(source, channels, members))
    return new


def slice_channels(new: M, old: nn.Module, **settings: Tensor | None) -> M:
    """Copy pieces of ``old``'s settings, given by name, into a narrow module."""
    empty_like(new, old)
    targets = dict(new.named_parameters()) | dict(new.named_buffers())
    with torch.no_grad():
        for name, piece in settings.items():
            if piece is not None:
                targets[name].copy_(piece)
    return new


def take_parameters(new: M, old: nn.Module) -> M:
    """Give a module built on the meta device the parameters of another; its flag and device too."""
    new._parameters.update(old._parameters)
    return new.to(device=next(old.parameters()).device).train(old.training)


def part(index: int, width: int) -> slice:
    """Where the channels of member ``index`` lie: members are contiguous."""
    return slice(index * width, (index + 1) * width)


def chunk(tensor: Tensor, axis: int, index: int, count: int) -> Tensor:
    """One of so many equal parts along an axis, as a view."""
    assert tensor.shape[axis] % count == 0, (tensor.shape, axis, count)
    width = tensor.shape[axis] // count
    return tensor.narrow(axis, index * width, width)


def dtype_of(module: nn.Module) -> Any:
    """The dtype of its parameters, else of its floating-point buffers, else the default (None)."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return None


def own_settings(module: nn.Module, own: slice) -> dict[str, Tensor]:
    """A member's share of every per-channel parameter and buffer that is kept; scalars whole."""
    buffers = module.named_buffers(recurse=False)
    kept = ((n, b) for n, b in buffers if n not in module._non_persistent_buffers_set)
    tensors = dict(module.named_parameters()) | dict(kept)
    return {name: tensor[own] if tensor.dim() else tensor for name, tensor in tensors.items()}


def ensemble_sizes(
    module: nn.Module,
    layer: RegionLayer,
    multiplicity: int,
    widths: tuple[int, ...],
    sizes: tuple[int, int],
    *,
    inner: int = 1,
    what: str = "channels",
) -> tuple[int, int]:
    """Inputs and outputs of a layer, all members together; an end outside the region stays.

    Args:
        module: the original module, for messages.
        layer: its part in the region.
        multiplicity: members.
        widths: width of one member per class of the region.
        sizes: the original's inputs and outputs.
        inner: inputs per channel.
        what: what the module calls them.

    Raises:
        RewriteError: if the original's sizes are not the plan's.
    """
    n_in, n_out = sizes
    if layer.role != "entry":
        check_size(module, f"input {what}", n_in, layer.in_channels * inner)
        n_in = multiplicity * layer.reads(widths) * inner
    if layer.role != "exit":
        check_size(module, f"output {what}", n_out, layer.out_channels)
        n_out = multiplicity * layer.written * widths[layer.target]
    return n_in, n_out


def convolution_options(conv: Any, *more: str) -> dict[str, Any]:
    """Arguments of another convolution of the same geometry and type, on meta."""
    named = ("kernel_size", "stride", "padding", "dilation", *more)
    found = {name: getattr(conv, name) for name in named}
    return {**found, "device": "meta", "dtype": conv.weight.dtype}


def split_convolution(
    conv: Any,
    layer: RegionLayer,
    multiplicity: int,
    widths: tuple[int, ...],
    like: Callable[..., M],
) -> M:
    """A convolution's ensemble: one group per member inside, a single group at entries and exits.

    Groups inside a member stay.

    Args:
        conv: the original module.
        layer: its part in the region.
        multiplicity: members.
        widths: width of one member per class of the region.
        like: makes one of the same kind with other channels and groups, on meta.
    """
    check_size(conv, "kernel elements", prod(conv.kernel_size), layer.kernel)
    own = conv.in_channels, conv.out_channels
    sizes = ensemble_sizes(conv, layer, multiplicity, widths, own)
    groups = multiplicity * layer.groups if layer.role == "interior" else 1
    new = empty_like(like(conv, sizes, groups, bias=conv.bias is not None), conv)
    return fill_filters(new, conv, 1 if layer.role == "exit" else multiplicity)


def filter_names(conv: nn.Module) -> list[str]:
    """A layer's parameters besides weight and bias, one value per filter."""
    return [n for n, p in conv._parameters.items() if p is not None and n not in ("weight", "bias")]


def fill_filters(new: M, old: nn.Module, members: int = 1) -> M:
    """Give a resized layer's settings per filter, if it has any, a sample of the original's."""
    with torch.no_grad():
        for name in filter_names(new):
            source, target = old.get_parameter(name).detach(), new.get_parameter(name)
            if source.shape == target.shape or source.is_meta:
                target.copy_(source)
                continue
            channels = sampled_channels(source.flatten(), len(target))
            target.copy_(resampled(source.flatten(), channels, members).view_as(target))
    return new


def member_filters(
    module: nn.Module, layer: RegionLayer, index: int, widths: tuple[int, ...]
) -> dict[str, Tensor]:
    """One member's part of the settings per filter; an exit's are every member's."""
    own = part(index, layer.written * widths[layer.target]) if layer.role != "exit" else slice(None)
    return {name: module.get_parameter(name)[own] for name in filter_names(module)}


def member_bias(
    bias: Tensor | None, layer: RegionLayer, index: int, widths: tuple[int, ...]
) -> Tensor | None:
    """One member's part of a bias; an exit's goes to member 0, the others get zeros."""
    if bias is None:
        return None
    if layer.role == "exit":
        return bias if index == 0 else torch.zeros_like(bias)
    return bias[part(index, layer.written * widths[layer.target])]
