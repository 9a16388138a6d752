"""Running a model for shapes alone: on the meta device, where nothing is computed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.ir.inputs import Inputs, Output
from cerewrite.rewriting.record import copy_sharing_record
from cerewrite.runtime.trees import tensors
from cerewrite.verifier.running import call, fresh_copy

_SIDE = {False: 32, True: 64}
"""Positions a side that a crop keeps, by training mode; a batch norm there needs a few more."""


def run_for_shapes(
    model: nn.Module,
    inputs: Inputs,
    *,
    training: bool,
    prepare: Callable[[nn.Module], None] = lambda model: None,
) -> Output:
    """A model's output with the right structure, shapes and dtypes.

    A copy runs on the meta device, at no cost whatever its size; one that cannot run there
    (it makes tensors of its own elsewhere, or looks at values) runs where it is.

    Args:
        model: the model; only copies are run.
        inputs: example inputs.
        training: which mode.
        prepare: called with each copy before it runs (to hang hooks on).

    Raises:
        Exception: whatever the model raises where it is.
    """
    with torch.no_grad():
        try:
            return _run_on_meta(model, inputs, training, prepare)
        except Exception:
            copy = fresh_copy(model, training=training)
            prepare(copy)
            return call(copy, inputs)


def smaller(inputs: Inputs, *models: nn.Module, training: bool) -> Inputs:
    """The inputs with images cropped to 32 or 64 positions a side, if all models take them.

    What is checked on values holds for any input, and a crop makes a large image model ten
    times cheaper to check. Floating-point tensors ``[batch, channels, *positions]`` with two or
    more axes of positions are cropped; if a model raises on the crops or gives empty outputs,
    the inputs come back as they are.
    """

    def crop(tensor: Tensor) -> Tensor:
        if tensor.dim() < 4 or not tensor.is_floating_point():
            return tensor
        for axis in range(2, tensor.dim()):
            tensor = tensor.narrow(axis, 0, min(_SIDE[training], tensor.shape[axis]))
        return tensor

    crops: Inputs = pytree.tree_map_only(Tensor, crop, inputs)
    pairs = zip(tensors(inputs), tensors(crops), strict=True)
    if all(old.shape == new.shape for old, new in pairs):
        return inputs
    try:
        for model in models:
            with torch.no_grad():
                outputs = _run_on_meta(model, crops, training, lambda model: None)
            if not all(output.numel() for output in tensors(outputs)):
                return inputs
    except Exception:
        return inputs
    return crops


def _run_on_meta(
    model: nn.Module, inputs: Inputs, training: bool, prepare: Callable[[nn.Module], None]
) -> Output:
    copy = _meta_copy(model).train(training)
    prepare(copy)
    return call(copy, pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), inputs))


def _meta_copy(model: nn.Module) -> nn.Module:
    """A deep copy with its parameters and buffers on the meta device; the values not copied."""
    stand_ins: dict[int, Tensor] = {}
    for parameter in model.parameters():
        meta = parameter.detach().to("meta")
        stand_ins[id(parameter)] = nn.Parameter(meta, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        stand_ins[id(buffer)] = buffer.detach().to("meta")
    return copy_sharing_record(model, stand_ins)
