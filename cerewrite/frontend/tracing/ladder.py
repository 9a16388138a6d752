"""The ladder of tracers: export, symbolic tracing, a recorder; each failure keeps its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cerewrite.errors import CerewriteError, TraceError, first_line, own_line
from cerewrite.frontend.tracing.collapse import collapse_leaf_modules
from cerewrite.frontend.tracing.export_rung import export_ops
from cerewrite.frontend.tracing.first_names import under_first_names
from cerewrite.frontend.tracing.forms import in_known_forms
from cerewrite.frontend.tracing.lengths import UNTOLD, names_widths
from cerewrite.frontend.tracing.modes import read_in_training
from cerewrite.frontend.tracing.raw_weights import with_raw_weights
from cerewrite.frontend.tracing.recorder_rung import recorded_ops
from cerewrite.frontend.tracing.subject import check_ready, observed
from cerewrite.frontend.tracing.symbolic_rung import symbolic_ops
from cerewrite.frontend.tracing.widths import build_widths
from cerewrite.ir import Op, TracedModel
from cerewrite.ops import LayerRule, rule_for
from cerewrite.runtime.alone import muted
from cerewrite.runtime.fingerprint import fingerprint
from cerewrite.runtime.trees import examples, tensors

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
Frontend = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], list[Op]]

RECORDER = "recorder"

LADDER: tuple[tuple[str, Frontend], ...] = (
    ("export", export_ops),
    ("symbolic_trace", symbolic_ops),
    (RECORDER, recorded_ops),
)


def trace(model: nn.Module, example_inputs: Any) -> TracedModel:
    """See a model's operators, sampled layers and width classes.

    The graph is for analysis only: the model is traced in eval mode, its flags are put back,
    and nothing of it changes. Parameters may be on the meta device.

    Args:
        model: any module.
        example_inputs: a tensor, a tuple of positional inputs, or a dict of keyword inputs;
            the first axis of the first tensor is the batch.

    Returns:
        The traced model.

    Raises:
        TraceError: if no rung can see it, with the reason of each; or if the model itself
            raises on these inputs.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> traced = trace(net, torch.ones(2, 4))
        >>> [layer.name for layer in traced.layers], traced.frontend
        (['0', '2', '3'], 'export')
    """
    check_ready(model)
    args, kwargs = normalise_inputs(example_inputs)
    _require_batch(args, kwargs)
    reasons: list[str] = []
    seen: TracedModel | None = None
    for name, frontend in LADDER:
        if seen is not None and name != RECORDER:
            continue
        try:
            with observed(model), muted():
                seen_ops = under_first_names(frontend(model, args, kwargs), model)
                ops = in_known_forms(collapse_leaf_modules(seen_ops, model))
                ops = with_raw_weights(ops, model)
                kept = read_in_training(model, args, kwargs, ops)
        except TraceError:
            raise
        except Exception as error:  # a tracer may fail in any way on a user's forward
            reasons.append(f"{name}: {first_line(error)}")
            continue
        traced = build_widths(
            ops,
            model,
            frontend=name,
            batch=examples((args, kwargs), _rows(ops)),
            fingerprint=fingerprint(model),
            notes=tuple(reasons),
            kept=kept,
        )
        if seen is not None and any(op.target == "host_read" for op in traced.ops):
            return seen
        if name == RECORDER or not names_widths(traced):
            return traced
        seen = traced
        reasons.append(f"{name}: {UNTOLD}")
    if seen is not None:
        return seen
    raise _failure(model, args, kwargs, reasons)


def record_ops(model: nn.Module, example_inputs: Any) -> list[Op]:
    """The operators of a model as the recorder alone sees them; no width classes are made.

    Args:
        model: any module, a rewritten one too.
        example_inputs: as for `trace`.

    Raises:
        TraceError: if the model cannot be run on these inputs.
    """
    check_ready(model)
    args, kwargs = normalise_inputs(example_inputs)
    _require_batch(args, kwargs)
    try:
        with observed(model), muted():
            return recorded_ops(model, args, kwargs)
    except CerewriteError:
        raise
    except Exception as error:  # a user's forward may fail in any way
        raise _failure(model, args, kwargs, [f"{RECORDER}: {first_line(error)}"]) from error


def normalise_inputs(example_inputs: Any) -> Inputs:
    """Example inputs as positional and keyword arguments.

    Raises:
        TraceError: if there are none.
    """
    if example_inputs is None:
        raise TraceError(
            "no example inputs were given",
            advice="pass --input SHAPE, or define example_inputs() beside the model",
        )
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def _require_batch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    leaves = tensors((args, kwargs))
    if not leaves or leaves[0].dim() == 0:
        raise TraceError(
            "the example inputs hold no tensor with a batch axis",
            advice="give at least one tensor whose first axis is the batch",
        )
    if not leaves[0].shape[0]:
        raise TraceError("the batch is empty", advice="give at least one example, better two")


def _rows(ops: Sequence[Op]) -> int:
    """First axis of what the first layer writes; 0 without any."""
    layers = (op for op in ops if isinstance(rule_for(op), LayerRule) and op.shape)
    return next((op.shape[0] for op in layers), 0)


def _failure(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], reasons: list[str]
) -> TraceError:
    """Tell a model that raises on these inputs from one that no tracer can follow."""
    shapes = ", ".join(str(tuple(leaf.shape)) for leaf in tensors((args, kwargs)))
    try:
        with observed(model), torch.no_grad():
            model(*args, **kwargs)
    except CerewriteError:  # no memory, or the program was to end: no fault of the inputs
        raise
    except Exception as error:  # whatever the user's forward raises is the reason
        advice = "give inputs that the model accepts (--input SHAPE, or example_inputs())"
        if any(word in str(error) for word in ("CUDA", "cuda", "same device")):
            advice = "move the model and its inputs to the device that its forward needs"
        return TraceError(
            f"the model raises on example inputs of shape {shapes}: {first_line(error)}"
            f"{own_line(error)}",
            advice=advice,
        )
    return TraceError(
        "no tracer can follow the model: " + "; ".join(reasons),
        advice="remove data-dependent control flow, or analyse the submodules one by one",
    )
