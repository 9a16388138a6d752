"""Convolutions that standardise their weight: every filter less its mean, over its deviation.

A forward of a user's own is known by what it computes, not by how it is written: on small copies of
the module whose filters are shifted and scaled, the weight that its convolution reads must be the
standardised one (docs/theory.md, section 36). What is standardised is each filter over its own
fan-in, so that a grouped layer does it member by member.
"""

from __future__ import annotations

import copy
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cerewrite.errors import RewriteError
from cerewrite.nn.weight_read import weight_read
from cerewrite.ops.own_forwards import filter_settings, has_own_forward, resized_copy, stock_names

STANDARDISED = "standardised"
"""Keyword of a traced convolution that standardises its weight."""

_KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CLOSE = 1e-4
_LARGE = 1e3
"""Deviation of a trial's raw weights, beside which what is added to it is nothing."""
_SIZES = (1, 2, 4)
"""Factors of the channels at which a constructor shows what its numbers are derived from."""


def standardises(module: nn.Module) -> bool:
    """Whether a module is a convolution that standardises its weight.

    Args:
        module: any module.

    Example:
        >>> class Centred(nn.Conv1d):
        ...     def forward(self, x):
        ...         w = self.weight - self.weight.mean((1, 2), keepdim=True)
        ...         return self._conv_forward(x, w, self.bias)
        >>> class Standard(nn.Conv1d):
        ...     def forward(self, x):
        ...         w = nn.functional.layer_norm(self.weight, self.weight.shape[1:])
        ...         return self._conv_forward(x, w, self.bias)
        >>> standardises(Centred(4, 8, 3)), standardises(Standard(4, 8, 3))
        (False, True)
    """
    if not isinstance(module, _KINDS) or not has_own_forward(module, _KINDS):
        return False
    return _standardises(_trial(module))


def level_of(conv: nn.Module) -> float:
    """``fan_in`` times the mean square of the weight that is read (docs/theory.md, eq. 130).

    On the meta device raw weights are taken as standard normal, settings per filter as 1.

    Args:
        conv: a convolution that standardises its weight.
    """
    assert isinstance(conv, _KINDS), conv
    if conv.weight.is_meta:
        conv = _like(conv, conv.in_channels, conv.out_channels, conv.groups)
    read = weight_read(conv)
    assert read is not None, conv
    return prod(read.shape[1:]) * float(read.detach().double().square().mean())


def derived(conv: _ConvNd, n_in: int, n_out: int, groups: int) -> dict[str, float]:
    """Numbers of a standardised convolution that its constructor derives, for other channels.

    ``self.scale = gamma * fan_in ** -0.5`` is one. They follow the ratio of what the constructor
    makes of both sizes by default, which must be a power of the size.

    Args:
        conv: a convolution with a forward of its own.
        n_in: input channels.
        n_out: output channels.
        groups: groups.

    Raises:
        RewriteError: if what they are derived from cannot be told.
    """
    found: dict[str, float] = {}
    for name in _numbers(conv):
        value = vars(conv)[name]
        own, new = (
            _constructed(conv, name, *sizes)
            for sizes in ((conv.in_channels, conv.out_channels, conv.groups), (n_in, n_out, groups))
        )
        why = untold(conv)
        if why is not None or own is None or new is None:
            raise RewriteError(
                f"a {type(conv).__qualname__} cannot be split: it {why or _untold(name)}",
                advice="exclude the layer, or compute the number in its forward",
            )
        found[name] = new if value == own else value * (new / own)
    return found


def untold(conv: nn.Module) -> str | None:
    """Why a standardised convolution's numbers cannot be had at another width; None if they can."""
    assert isinstance(conv, _ConvNd)
    for name in _numbers(conv):
        depthwise = conv.groups == conv.in_channels
        made = [
            _constructed(
                conv, name, f * conv.in_channels, f * conv.out_channels,
                f * conv.groups if depthwise else conv.groups,
            )
            for f in _SIZES
        ]  # fmt: skip
        one, two, four = made
        if one is None or two is None or four is None or not one:
            return _untold(name)
        if abs((two / one) ** 2 - four / one) > _CLOSE * abs(four / one):  # no power of the size
            return _untold(name)
    return None


def _untold(name: str) -> str:
    return f"multiplies its weight by '{name}', and what that is derived from cannot be told"


def _numbers(conv: _ConvNd) -> list[str]:
    """Attributes of the module's own that move the weight it reads."""
    trial = _trial(conv)
    found: list[str] = []
    before = weight_read(trial)
    if before is None:
        return found
    for name in sorted(vars(conv).keys() - stock_names(type(conv))):
        value = vars(conv)[name]
        if type(value) in (int, float):
            moved = copy.copy(trial)
            vars(moved)[name] = 2 * value
            after = weight_read(moved)
            if after is None or not _alike(after, before):
                found.append(name)
    return found


def _constructed(conv: _ConvNd, name: str, n_in: int, n_out: int, groups: int) -> float | None:
    """What a module's own constructor makes of an attribute, all else by default; None if nothing.

    Nothing is drawn: it runs on the meta device.
    """
    kind: type[Any] = type(conv)
    more = {"groups": groups} if groups > 1 else {}
    try:
        with torch.device("meta"):
            made = kind(n_in, n_out, conv.kernel_size, **more)
    except Exception:  # a user's constructor may raise anything
        return None
    value = vars(made).get(name)
    return value if type(value) in (int, float) else None


def _trial(conv: _ConvNd) -> _ConvNd:
    """A small copy in double precision: raw weights standard normal, settings per filter 1."""
    depthwise = conv.groups == conv.in_channels > 1
    groups = 1 if conv.groups == 1 else 2
    n_in = groups if depthwise else 3 * groups
    return _like(conv, n_in, 4 * groups, groups).double()


def _like(conv: _ConvNd, n_in: int, n_out: int, groups: int) -> _ConvNd:
    shapes = {"weight": (n_out, n_in // groups, *conv.kernel_size), "bias": (n_out,)}
    shapes |= filter_settings(conv, n_out)
    new = resized_copy(conv, shapes, in_channels=n_in, out_channels=n_out, groups=groups)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in new._parameters.items():
        if parameter is not None:
            values = torch.ones(parameter.shape, dtype=parameter.dtype)
            if name == "weight":
                values.normal_(generator=generator)
            new._parameters[name] = nn.Parameter(values)
    return new


def _standardises(trial: _ConvNd) -> bool:
    """Whether every filter is read less its mean, over its deviation, times its own setting."""
    raw = trial.weight.detach().clone()
    filters = len(raw)
    spread = torch.linspace(0.5, 2, filters, dtype=raw.dtype).view(-1, *[1] * (raw.dim() - 1))
    settings = [trial.get_parameter(name) for name in filter_settings(trial, filters)]
    centred = (raw - raw.flatten(1).mean(1).view_as(spread)).flatten(1)
    deviation = centred.square().mean(1).sqrt()
    if len(settings) > 1 or not bool((deviation > _CLOSE).all()):
        return False
    with torch.no_grad():
        trial.weight.copy_(_LARGE * spread * (raw + spread.flip(0)))
        for setting in settings:
            setting.copy_(spread.flip(0).reshape(setting.shape))
        read = weight_read(trial)
        trial.weight.copy_(raw)
        for setting in settings:
            setting.fill_(1)
    if read is None or read.shape != raw.shape:
        return False
    wanted = centred / deviation[:, None] * (spread.flip(0).flatten(1) if settings else 1.0)
    number = float((read.flatten(1) * wanted).sum() / wanted.square().sum())
    return number != 0 and _alike(read.flatten(1), number * wanted)


def _alike(first: Tensor, second: Tensor) -> bool:
    size = float(second.detach().abs().max())
    return first.shape == second.shape and float((first - second).abs().max()) <= _CLOSE * size
