"""What training keeps of the forward pass: the tensors that autograd saves, from the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from cerewrite.errors import UsageError
from cerewrite.ir import Analysis, Op, Region, RegionEstimate, SavedActivations, TracedModel
from cerewrite.ops.base import OPRULES, TARGETS, Saved
from cerewrite.planning.budgets import BUDGETS
from cerewrite.planning.budgets.memory import COPIES

_READING = frozenset(
    {"mm", "addmm", "baddbmm", "convolution", "local_response_norm", "_prelu_kernel"}
)
"""Operators without a rule that keep what they read."""

SPLIT = "split"
"""Marks what only the operator that takes another's place in a split keeps."""

INDEX = 8
"""Bytes of one index of a maximum pool."""


def keep(analysis: Analysis, traced: TracedModel, model: nn.Module, *, batch: int = 32) -> Analysis:
    """An analysis that knows what one training step holds, for a memory budget.

    Distinct tensors are counted, at the sizes of the trace, per example: what layers, norms and
    pools read, what activations keep, the masks of dropout and the indices of maximum pools.
    A layer norm with a weight on channels that may be split is counted with one tensor more in
    every design but the original: the norm that takes its place in a split keeps it. All
    elements have the size of the model's first floating-point parameter.

    Args:
        analysis: the analysis.
        traced: the trace it was made from.
        model: the module; it is only read.
        batch: examples per training step.

    Raises:
        UsageError: if the batch is below 1.

    References:
        PyTorch, tools/autograd/derivatives.yaml: which tensors each operator's backward reads.
    """
    if batch < 1:
        raise UsageError(f"training at batch {batch}", advice="give a batch of 1 or more")
    item = next((p.element_size() for p in model.parameters() if p.is_floating_point()), 4)
    saved = saved_bytes(traced, model, item)
    sizes = {width.name: width.size for width in traced.widths}
    per_channel = _per_channel(saved, traced, sizes)
    per_member = _per_member(saved, traced)
    later = {key: size for key, size in saved.items() if key[1] == SPLIT}
    spared = _per_channel(later, traced, sizes)

    def with_kept(found: tuple[RegionEstimate, ...]) -> tuple[RegionEstimate, ...]:
        return tuple(
            replace(one, region=replace(one.region, kept=kept(one.region))) for one in found
        )

    def kept(region: Region) -> SavedActivations:
        channels = tuple(per_channel.get(name, 0) for name in region.classes)
        members = sum(per_member.get(module.name, 0) for module in region.modules)
        less = sum(spared.get(name, 0) * sizes[name] for name in region.classes)
        return SavedActivations(batch, item, channels, members, less)

    values = sum(saved.values()) - sum(later.values())
    whole = COPIES * item * traced.params + batch * (values // traced.batch)
    note = (
        f"Memory is {BUDGETS['memory'].unit} at batch {batch}, {item} bytes per element: "
        "parameters, gradients, one momentum, and what autograd keeps."
    )
    return replace(
        analysis,
        regions=with_kept(analysis.regions),
        scopes=tuple(replace(found, regions=with_kept(found.regions)) for found in analysis.scopes),
        memory=whole,
        assumptions=(*analysis.assumptions, note),
    )


def saved_bytes(traced: TracedModel, model: nn.Module, item: int) -> dict[tuple[str, str], int]:
    """Bytes of each tensor that autograd keeps, at the traced batch.

    Args:
        traced: the trace.
        model: the module; it is only read.
        item: bytes of one element.

    Returns:
        By the operator that made the tensor, and ``own`` or ``statistics`` where it is not its
        output, or ``split`` where only the operator that takes its place in a split keeps it.
    """
    ops = {op.name: op for op in traced.ops}
    modules = dict(model.named_modules(remove_duplicate=False))
    storage: dict[str, str] = {}
    saved: dict[tuple[str, str], int] = {}
    for op in traced.ops:
        read = [name for name in op.inputs if not ops[name].is_stored]
        kept = _saved(op, modules.get(op.module))
        storage[op.name] = storage[read[0]] if read and kept.shares else op.name
        extra = {
            "own": kept.own * item + kept.indices * INDEX,
            "statistics": kept.statistics * item,
            SPLIT: kept.split * item if op.name in traced.carried else 0,
        }
        saved |= {(op.name, what): size for what, size in extra.items() if size}
        for name in read if kept.reads else [op.name] if kept.output and read else []:
            made = ops[storage[name]]
            saved[made.name, ""] = made.numel * item
    return saved


def _saved(op: Op, module: nn.Module | None) -> Saved:
    """What the rule of an operator says; one without is taken for a function of one tensor."""
    if op.is_end or op.target == "host_read":
        return Saved()
    if op.target in _READING:
        return Saved(reads=True)
    pointwise = OPRULES["pointwise"]
    return TARGETS.get(op.target, pointwise).saved(op, module)


def _per_channel(
    saved: Mapping[tuple[str, str], int], traced: TracedModel, sizes: Mapping[str, int]
) -> dict[str, int]:
    """Bytes per example and channel of every width class."""
    found: dict[str, int] = {}
    for (name, what), size in saved.items():
        classes = () if what == "statistics" else traced.carried.get(name, ())
        channels = traced.batch * sum(sizes[width] for width in classes)
        for width in classes:
            found[width] = found.get(width, 0) + size // channels
    return found


def _per_member(saved: Mapping[tuple[str, str], int], traced: TracedModel) -> dict[str, int]:
    """Bytes per example of the statistics that a norm keeps, by its module."""
    found: dict[str, int] = {}
    for op in traced.ops:
        if (op.name, "statistics") in saved:
            size = saved[op.name, "statistics"] // traced.batch
            found[op.module] = found.get(op.module, 0) + size
    return found
