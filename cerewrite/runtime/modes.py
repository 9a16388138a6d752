"""Modules that are run and come back as they were: flags, buffers, random state."""

from __future__ import annotations

import contextlib
import inspect
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.runtime.alone import alone

OF_ANY_MODULE = frozenset(vars(nn.Module()))
"""Attributes of every module: what it registers, its hooks, its flag."""

BATCH_NORMS: tuple[type[nn.BatchNorm2d], ...] = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
)  # type: ignore[assignment]  # their common base is private to torch
"""Norms over a batch, which keep running statistics."""


def called(model: nn.Module, inputs: Mapping[str, Any] | Sequence[Any]) -> Any:
    """What a model returns on keyword arguments, or on positional ones."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def sign(module: nn.Module, like: nn.Module) -> None:
    """Show another model's arguments, which trainers and exporters read off a module's forward."""
    own = type(module)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return own.forward(self, *args, **kwargs)

    forward.__signature__ = inspect.signature(type(like).forward)  # type: ignore[attr-defined]
    vars(module)["forward"] = MethodType(forward, module)


@contextlib.contextmanager
def modes_kept(*models: nn.Module) -> Iterator[None]:
    """Put the training flag of every submodule back.

    Example:
        >>> layer = nn.Dropout()
        >>> with modes_kept(layer):
        ...     layer.eval().training
        False
        >>> layer.training
        True
    """
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextlib.contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Put plain attributes of all modules back: counters, caches, lists of what was seen.

    A traced forward would leave tensors without values there, a measured one graphs of its own.
    Parameters, buffers, submodules and hooks are not looked at, nor what lies deeper than a
    container.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> with attributes_kept(layer):
        ...     layer.seen = [1]
        >>> hasattr(layer, "seen")
        False
    """
    own = [
        (vars(module), {name: (value, _contents(value)) for name, value in vars(module).items()})
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for now, before in own:
            for name in now.keys() - before.keys():
                del now[name]
            for name, (value, contents) in before.items():
                if name not in OF_ANY_MODULE:
                    now[name] = value
                    _refill(value, contents)


def _contents(value: Any) -> list[Any]:
    """What a container of Python's own holds."""
    if type(value) in (dict, OrderedDict):
        return list(value.items())
    return list(value) if type(value) in (list, set) else []


def _refill(value: Any, contents: list[Any]) -> None:
    """Put a container's contents back, if they are others."""
    if [id(item) for item in _flat(_contents(value))] != [id(item) for item in _flat(contents)]:
        value.clear()
        value.extend(contents) if isinstance(value, list) else value.update(contents)


def _flat(contents: list[Any]) -> list[Any]:
    """Keys and values of a mapping's items side by side."""
    return [part for item in contents for part in (item if isinstance(item, tuple) else (item,))]


@contextlib.contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode; the flags are put back."""
    with modes_kept(*models):
        for model in models:
            model.eval()
        yield


@contextlib.contextmanager
def undisturbed(
    model: nn.Module, *, on_batch: Collection[nn.BatchNorm2d] = (), learning: bool = False
) -> Iterator[None]:
    """Evaluation mode without gradients, of which nothing remains on the model.

    Restored are the training flag of every submodule, every buffer that a forward call changed
    or replaced, plain attributes, and the random state. Attention's fast path is off.

    Args:
        model: the model.
        on_batch: batch norms of it that use the batch's statistics all the same.
        learning: whether their running statistics become the batch's, and remain so.
    """
    own = set(on_batch)
    momenta = [(norm, norm.momentum) for norm in own]
    try:
        with (
            alone(),
            buffers_kept(model, learning=own if learning else ()),
            attributes_kept(model),
            evaluating(model),
            torch.no_grad(),
        ):
            torch.backends.mha.set_fastpath_enabled(False)  # it hides products; `alone` resets it
            for norm in own:
                norm.train().momentum = 1.0
            yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum


@contextlib.contextmanager
def buffers_kept(*models: nn.Module, learning: Collection[nn.Module] = ()) -> Iterator[None]:
    """Put every buffer back that was changed or replaced; meta buffers have no values to keep.

    Reading a parametrised weight in training mode is enough to change one (spectral norm's).

    Args:
        models: whose buffers.
        learning: norms whose running statistics may change.
    """
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for model in models
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if not buffer.is_meta and not (module in learning and name.startswith("running_"))
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in buffers:
            _restore(module, name, buffer, value)


def _restore(module: nn.Module, name: str, buffer: Tensor, value: Tensor) -> None:
    if not torch.equal(buffer, value):
        with torch.no_grad():
            buffer.copy_(value)
    if getattr(module, name) is not buffer:
        setattr(module, name, buffer)
