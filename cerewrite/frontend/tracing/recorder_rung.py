"""Third rung: run the forward once and write down what it calls.

The forward runs on fake tensors, which hold no values and cost nothing. If it looks at values
(``if x.sum() > 0``), it runs on the example inputs themselves, and every look is noted: what was
seen is one path of several (`cerewrite.frontend.tracing.decisions`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules import module as hooks
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils import _pytree as pytree

from cerewrite.frontend.tracing.fusion import fuse
from cerewrite.frontend.tracing.numbers import MET, USED, numbers_remembered
from cerewrite.frontend.tracing.recording import Recording
from cerewrite.ir import Op
from cerewrite.runtime.alone import alone
from cerewrite.runtime.modes import attributes_kept
from cerewrite.runtime.trees import tensors


def recorded_ops(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Op]:
    """Operators of a model as its forward calls them.

    Raises:
        Exception: whatever the model raises, on fake tensors and on the inputs themselves.
    """
    with numbers_remembered(model) as (used, met):
        ops = _recorded(model, args, kwargs)
    marks: list[tuple[str, tuple[Any, ...]]] = [(name, (USED,)) for name in sorted(used)]
    marks += [(name, (MET, *axis)) for name, axis in sorted(met)]
    return [
        *(Op(f"used_{i}", "constant", (), (), n, args=a) for i, (n, a) in enumerate(marks)),
        *ops,
    ]


def _recorded(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Op]:
    try:
        with attributes_kept(model), FakeTensorMode(allow_non_fake_inputs=True) as fakes:
            return _record(model, args, kwargs, fakes.from_tensor, fakes.from_tensor)
    except Exception:  # data-dependent, or a library that fakes do not reach
        with attributes_kept(model):
            return _record(model, args, kwargs, torch.Tensor.clone, lambda tensor: tensor)


def _record(model: nn.Module, args: Any, kwargs: Any, copy: Any, borrow: Any) -> list[Op]:
    """Run once; inputs and buffers are copied, parameters borrowed, and all are put back."""
    made: dict[int, Tensor] = {}

    def stand_in(tensor: Tensor, make: Any) -> Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = make(tensor)
        return made[id(tensor)]

    named = {n: stand_in(t, borrow) for n, t in _held(model, "_parameters")}
    named |= {n: stand_in(t, copy) for n, t in _held(model, "_buffers")}
    given = pytree.tree_map_only(Tensor, lambda t: copy(t.detach()), (args, kwargs))
    with alone(), torch.no_grad(), _reparametrize_module(model, named):
        recording = Recording(model)
        recording.inputs(given)
        with torch.compiler.set_stance("force_eager"), _hooked(recording), recording:
            output = model(*given[0], **given[1])
    recording.output(tensors(output))
    return fuse(recording.ops, recording.combine)


def _held(model: nn.Module, table: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters or buffers by name: a tied one in every module, a module with two names once."""
    for prefix, module in model.named_modules():
        for name, tensor in getattr(module, table).items():
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor


@contextlib.contextmanager
def _hooked(recording: Recording) -> Iterator[None]:
    """Tell a recording which module runs, without a trace on the modules."""
    handles = [
        hooks.register_module_forward_pre_hook(recording.enter),
        hooks.register_module_forward_hook(recording.leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
