"""Channels that make logits of attention and nothing else, found by holding the weights still.

Whether attention is one operator or written as two products, whether queries, keys and values come
from one projection or three, and however heads are cut out of it: a channel makes logits if no
gradient arrives at it once attention's weights are constants (docs/theory.md, section 30).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from cerewrite.estimators.draws.gaussian import module_name
from cerewrite.estimators.draws.subject import Subject
from cerewrite.ir import TracedModel

Rows = NDArray[np.bool_]

_ATTENDS = "scaled_dot_product_attention"
_PRODUCTS = frozenset({"matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "einsum"})


class _Held(TorchFunctionMode):
    """Attention with weights that hand no gradient on."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == _ATTENDS:
            query, key, *rest = args
            return func(query.detach(), key.detach(), *rest, **kwargs)
        read = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        weights = [t for t in read if id(t) in self._weights]
        if name in _PRODUCTS and weights:
            others = [t for t in read if id(t) not in self._weights]
            if any(t.requires_grad for t in others):
                args, kwargs = pytree.tree_map_only(Tensor, self._still, (args, kwargs))
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and (name == "softmax" or weights):
            self._weights[id(result)] = result  # kept, so that its id stays its own
        return result

    def _still(self, value: Tensor) -> Tensor:
        return value.detach() if id(value) in self._weights else value


def logit_rows(traced: TracedModel, subject: Subject) -> dict[str, Rows]:
    """Which output channels of modules make logits alone, ``[channels]``; modules without any not.

    Args:
        traced: the trace.
        subject: what is measured, on its current weights.

    Raises:
        AnalysisError: if the model raises.
    """
    if not any(op.target in ("softmax", _ATTENDS) for op in traced.ops):
        return {}
    free = _arriving(traced, subject, None)
    held = _arriving(traced, subject, _Held())
    found = {name: rows & ~held.get(name, np.zeros_like(rows)) for name, rows in free.items()}
    return {name: rows for name, rows in found.items() if rows.any()}


def _arriving(
    traced: TracedModel, subject: Subject, mode: TorchFunctionMode | None
) -> dict[str, Rows]:
    """At which output channels of sampled layers' modules a gradient arrives."""
    modules = dict(subject.model.named_modules())
    axes = {module_name(y): 1 if "conv" in y.op else -1 for y in traced.layers}
    outputs: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad:
                outputs.append((name, output))

        return hook

    handles = [modules[n].register_forward_hook(note(n)) for n in axes if n in modules]
    try:
        with torch.enable_grad():
            if mode is None:
                f = subject.output()
            else:
                with mode:
                    f = subject.output()
            slopes = torch.autograd.grad(f, [y for _, y in outputs], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, Rows] = {}
    for (name, output), slope in zip(outputs, slopes, strict=True):
        slope = torch.zeros_like(output) if slope is None else slope
        rows = slope.movedim(axes[name], 0).flatten(1).any(1).cpu().numpy()
        found[name] = found.get(name, np.zeros_like(rows)) | rows
    return found
