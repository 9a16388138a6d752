"""Modules that run in training only: the trace is of evaluation and does not see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from cerewrite.frontend.tracing.recorder_rung import recorded_ops
from cerewrite.ir import Op, Rejection
from cerewrite.ops import LayerRule, rule_for
from cerewrite.runtime.modes import modes_kept

CODE = "training-only"


def read_in_training(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], ops: Sequence[Op]
) -> dict[str, Rejection]:
    """Layers whose outputs modules read that run in training only, by name.

    The forward is recorded in training mode too, where modules with parameters have not run in
    evaluation; a model that raises in training mode has nothing to add.

    Args:
        model: the module.
        args: positional inputs.
        kwargs: keyword inputs.
        ops: what ran in evaluation mode.
    """
    idle = _idle(model, ops)
    if not idle:
        return {}
    try:
        with modes_kept(model):
            model.train()
            seen = recorded_ops(model, args, kwargs)
    except Exception:  # a batch norm may refuse one value per channel, a model targets
        return {}
    found: dict[str, Rejection] = {}
    known = {op.name: op for op in seen}
    for op in seen:
        where = next((n for n in idle if op.module == n or op.module.startswith(f"{n}.")), None)
        if where is not None and op.target not in ("parameter", "constant"):
            for name in op.inputs:
                for layer in _layers_behind(known, name):
                    found.setdefault(layer, _refusal(where))
    return found


def _refusal(where: str) -> Rejection:
    return Rejection(
        where,
        CODE,
        f"'{where}' reads it in training mode only, where no trace sees how",
        "remove the branch (auxiliary heads: aux_logits=False), or keep this width",
    )


def _idle(model: nn.Module, ops: Sequence[Op]) -> list[str]:
    """Modules with parameters of their own or inside, of which nothing ran; the outermost."""
    ends = ("parameter", "constant")
    used = {name for op in ops for name in op.inputs}
    ran = {op.module for op in ops if op.target not in ends}
    read = {op.module.rpartition(".")[0] for op in ops if op.target in ends and op.name in used}
    above = set()
    for name in ran | read:
        while name:
            above.add(name)
            name = name.rpartition(".")[0]
    idle: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in idle)
        if name and name not in above and not inside and any(True for _ in module.parameters()):
            idle.append(name)
    return idle


def _layers_behind(known: dict[str, Op], name: str) -> Iterator[str]:
    """The nearest layers that write a value, what lies between passed over."""
    stack, done = [name], set()
    while stack:
        op = known[stack.pop()]
        if op.name in done or op.target in ("parameter", "constant", "input"):
            continue
        done.add(op.name)
        if isinstance(rule_for(op), LayerRule):
            yield op.module
        else:
            stack += op.inputs
