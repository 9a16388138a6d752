"""Outputs of some of a model's modules, seen by hooks that are taken off again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


def outputs_of(
    model: nn.Module, names: Sequence[str], run: Callable[[], Any]
) -> dict[str, Tensor]:
    """First output of each of these modules in one run, in the order in which they ran.

    Args:
        model: the model.
        names: qualified names of modules.
        run: runs the model once.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> found = outputs_of(model, ["0"], lambda: model(torch.ones(1, 2)))
        >>> [*found], [*found["0"].shape]
        (['0'], [1, 3])
    """
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found.setdefault(name, output.clone())  # an activation may overwrite it

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found
