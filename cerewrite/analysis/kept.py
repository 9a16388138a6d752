"""What training keeps of the forward pass: the tensors that autograd saves, from the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from torch import nn

from cerewrite.errors import UsageError
from cerewrite.ir import Analysis, Op, Region, RegionEstimate, SavedActivations, TracedModel
from cerewrite.planning.budgets import BUDGETS
from cerewrite.planning.budgets.memory import COPIES

ENDS = frozenset({"parameter", "constant"})

VIEWS = frozenset(
    {
        "flatten", "view", "reshape", "squeeze", "unsqueeze", "_unsafe_view", "unflatten", "alias",
        "permute", "transpose", "t", "movedim", "swapaxes", "numpy_T", "identity", "detach",
        "expand", "expand_as", "slice", "select", "narrow", "chunk", "split", "getitem", "to",
        "contiguous", "split_with_sizes", "unbind", "unsafe_chunk", "unsafe_split",
    }
)  # fmt: skip
"""Outputs that share their input's storage."""

NOTHING = frozenset(
    {
        "add", "iadd", "sub", "isub", "neg", "cat", "concat", "stack", "mean", "sum", "pad",
        "constant_pad_nd", "zero_pad2d", "clone", "output", "input",
        "channel_shuffle", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "index",
        "index_select", "roll", "flip", "repeat", "interpolate", "float", "type_as",
        *(f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "bilinear2d")),
        "upsample_linear1d", "upsample_bicubic2d", "upsample_trilinear3d", "zeros_like",
        "host_read", "ones_like", "arange",
    }
)  # fmt: skip
"""Operators whose backward needs no tensor of theirs."""

DROPOUT = frozenset(
    {
        "dropout",
        "native_dropout",
        "alpha_dropout",
        "feature_dropout",
        "feature_alpha_dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
    }
)
"""Operators that keep their mask alone."""

LEAVING = VIEWS | NOTHING | DROPOUT
"""Operators that keep neither what they read nor their output."""

INPUTS = frozenset(
    {
        "mul", "imul", "div", "matmul", "bmm", "mm", "baddbmm", "addmm", "einsum", "pow", "square",
        "abs", "log", "sin", "cos", "erf", "where", "clamp", "clamp_min", "clip",
        "gelu", "silu", "mish", "leaky_relu", "rrelu", "elu", "celu", "hardtanh", "relu6",
        "hardswish", "hardsigmoid", "softplus", "softsign", "log_sigmoid", "selu", "glu",
        "prelu", "_prelu_kernel", "hardshrink", "softshrink", "tanhshrink", "batch_norm",
        "instance_norm", "group_norm", "layer_norm", "rms_norm", "local_response_norm",
        "native_batch_norm", "_native_batch_norm_legit", "native_group_norm", "native_layer_norm",
        "linear", "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d",
        "conv_transpose2d", "conv_transpose3d", "embedding",
        *(f"{kind}_pool{d}d" for kind in ("max", "avg", "lp") for d in (1, 2, 3)),
        *(f"adaptive_max_pool{d}d" for d in (1, 2, 3)),
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
        "max_pool2d_with_indices", "reflection_pad2d", "replication_pad2d", "amax",
    }
)  # fmt: skip
"""Operators that keep what they read; any other keeps its output, as relu and sigmoid do."""

IN_PLACE = frozenset({"leaky_relu", "elu", "celu", "selu", "relu"})
"""Activations that, done in place, keep the one tensor that is input and output."""

TWICE = frozenset({"log_sigmoid", "softsign", "rms_norm"})
"""Operators that keep a tensor of their own besides: a factor, the normalised input."""

STATISTICS = {"layer_norm": 2, "native_layer_norm": 2, "rms_norm": 1}
"""Figures per row that norms over the channels keep; a split keeps them once per member."""

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
    layers = {layer.node for layer in traced.layers}
    modules = dict(model.named_modules(remove_duplicate=False))
    storage: dict[str, str] = {}
    saved: dict[tuple[str, str], int] = {}
    for op in traced.ops:
        read = [name for name in op.inputs if ops[name].target not in ENDS]
        module = modules.get(op.module)
        in_place = op.target in IN_PLACE and bool(getattr(module, "inplace", False))
        shares = read and (op.target in VIEWS or in_place or _is_idle(op, module))
        storage[op.name] = storage[read[0]] if shares else op.name
        if op.target in STATISTICS:
            saved[op.name, "statistics"] = _rows(op) * STATISTICS[op.target] * item
        if op.target in DROPOUT and not shares:
            whole = "feature" not in op.target and op.target[-2:] not in ("1d", "2d", "3d")
            saved[op.name, "own"] = item * (op.numel if whole else prod(op.shape[:2]))
        elif op.target.startswith(("max_pool", "adaptive_max_pool")):
            saved[op.name, "own"] = op.numel * INDEX
        elif op.target in TWICE:
            saved[op.name, "own"] = op.numel * item
        elif op.name in traced.carried and _is_scaled(op):
            saved[op.name, SPLIT] = op.numel * item
        for name in _keeps(op, read, sampled=op.name in layers):
            made = ops[storage[name]]
            saved[made.name, ""] = made.numel * item
    return saved


def _rows(op: Op) -> int:
    """Rows that a norm over the channels normalises, taking it to be over the last axis."""
    return op.numel // op.shape[-1]


def _is_scaled(op: Op) -> bool:
    """Whether it is a layer norm with a weight."""
    return "layer_norm" in op.target and len(op.inputs) > 1


def _is_idle(op: Op, module: nn.Module | None) -> bool:
    """Whether it is dropout that drops nothing."""
    rate = getattr(module, "p", None)
    return op.target in DROPOUT and (rate if rate is not None else (*op.args, 0.5)[1]) == 0


def _keeps(op: Op, read: list[str], *, sampled: bool) -> list[str]:
    """The operators whose outputs an operator's backward needs."""
    if not read or op.target in ENDS or op.target in LEAVING:
        return []
    if op.target.startswith("adaptive_avg_pool") and not any(s > 1 for s in op.shape[2:]):
        return []  # the mean over all positions
    if op.target in ("mul", "imul", "div"):
        return read if len(read) > 1 or len(op.inputs) > 1 else []
    if sampled or op.target in INPUTS:
        return read
    return [op.name]


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
