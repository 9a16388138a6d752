"""What a rewritten model remembers of its original, outside its parameters and modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError, UsageError
from cerewrite.frontend.loading import Inputs, make_inputs, parse_input_shape
from cerewrite.ir import Plan
from cerewrite.nn import NumberModule, get_parameter
from cerewrite.rewriting.session import set_submodule
from cerewrite.runtime.aliases import aliases
from cerewrite.runtime.copies import deep_copy

_ATTRIBUTE = "_cerewrite_record"
_NONE: Mapping[int, Any] = MappingProxyType({})


@dataclass(slots=True)
class Record:
    """The original's swapped modules and the values of everything else.

    Attributes:
        plan: what was done; its inputs are the shapes that the model was analysed on.
        modules: the modules that were swapped out, by qualified name; None if not kept.
        state: values of the other parameters and buffers at that time, by qualified name.
    """

    plan: Plan
    modules: dict[str, nn.Module] | None = None
    state: dict[str, Tensor] = field(default_factory=dict)


def is_rewritten(model: nn.Module) -> bool:
    """Whether a plan has been applied to this model."""
    return _ATTRIBUTE in vars(model)


def get_record(model: nn.Module) -> Record | None:
    """The record of a rewritten model; None if it is no rewritten one."""
    record: Record | None = vars(model).get(_ATTRIBUTE)
    return record


def draw_inputs(model: nn.Module) -> Inputs:
    """Example inputs of the shapes that a rewritten model was analysed on, drawn anew.

    Raises:
        UsageError: if it knows none.
    """
    record = get_record(model)
    if record is None or not record.plan.inputs:
        raise UsageError(
            f"no example inputs for this {type(model).__name__}, and no shapes to draw them to",
            advice="give example_inputs; a rewritten model knows the shapes of its analysis",
        )
    return make_inputs([parse_input_shape(text) for text in record.plan.inputs])


def attach(
    model: nn.Module,
    originals: dict[str, nn.Module],
    *,
    keep: bool,
    plan: Plan,
) -> None:
    """Mark a model as rewritten; keep what `revert` needs if asked to."""
    record = Record(plan)
    if keep:
        record.modules = dict(originals)
        inside = tuple(f"{name}." for name in originals)
        record.state = {
            name: tensor.detach().clone()
            for name, tensor in _tensors(model).items()
            if not name.startswith(inside) and name not in originals
        }
    vars(model)[_ATTRIBUTE] = record


def restore(model: nn.Module, record: Record) -> None:
    """Put the original modules and values back and forget the rewriting.

    Everything takes its original value and dtype, on the device where the model is now.
    """
    assert record.modules is not None
    _refuse_changed(model, record)
    others = aliases(model)
    for name, original in record.modules.items():
        current = get_parameter(model, name)
        original.train(current.training)
        where = next(current.parameters(), None)
        set_submodule(model, name, original if where is None else original.to(where.device), others)
    tensors = _tensors(model)
    with torch.no_grad():
        for name, value in record.state.items():
            tensors[name].data = value.to(tensors[name].device)
    del vars(model)[_ATTRIBUTE]


def copy_sharing_record(model: nn.Module, stand_ins: Mapping[int, Any] = _NONE) -> nn.Module:
    """A deep copy that shares the record, for a look that ends soon: half the memory.

    Args:
        model: the model.
        stand_ins: what to put in the place of copies of certain objects, by their ids.
    """
    record = get_record(model)
    shared = {} if record is None else {id(record): record}
    return deep_copy(model, {**shared, **stand_ins})


def _refuse_changed(model: nn.Module, record: Record) -> None:
    """Refuse a model whose structure has changed since it was rewritten."""
    known = {name for name, _ in model.named_modules()} | _tensors(model).keys()
    swapped = [n for n, m in (record.modules or {}).items() if not isinstance(m, NumberModule)]
    missing = [name for name in (*swapped, *record.state) if name not in known]
    if missing:
        raise RewriteError(
            f"the rewritten model has lost '{missing[0]}': it was changed by other means",
            advice="build the original anew",
        )


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())
