"""Running a user's model without leaving traces on it."""

from __future__ import annotations

import copy
import gc
import math

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.errors import first_line, own_line
from cerewrite.ir.inputs import Inputs, Output
from cerewrite.rewriting.record import copy_sharing_record
from cerewrite.runtime.alone import alone, printing_dropped
from cerewrite.runtime.modes import called
from cerewrite.runtime.trees import tensors

LIMIT = 1e-10
"""Relative error, in float64, of what is the same but for rounding."""

_SEED = 20_200_617


def call(model: nn.Module, inputs: Inputs) -> Output:
    """The model's output on a copy of the inputs, from a fixed random state.

    The copy protects the user's tensors from models that work in place; the caller's random
    state is kept, what the model prints is dropped, and compiled parts run as they are written.
    """
    own = pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), inputs)
    with alone(), printing_dropped(), torch.compiler.set_stance("force_eager"):
        if torch.accelerator.is_available():
            torch.manual_seed(_SEED)
        else:  # `torch.manual_seed` notes a stack for a device that may come: a small net's time
            torch.default_generator.manual_seed(_SEED)
        return called(model, own)


LARGE = 2**26
"""Parameters from which copies that are no longer used are collected before another is made."""


def fresh_copy(model: nn.Module, *, training: bool) -> nn.Module:
    """A deep copy in training or evaluation mode.

    Modules that know themselves (a ``forward`` of their own) are freed by the collector alone,
    which sees no reason to run for a few of them, however large.
    """
    if sum(parameter.numel() for parameter in model.parameters()) >= LARGE:
        gc.collect()
    return copy_sharing_record(model).train(training)


def on_meta(model: nn.Module) -> bool:
    """Whether a model has parameters without values."""
    return any(parameter.is_meta for parameter in model.parameters())


def doubled(inputs: Inputs) -> Inputs:
    """The inputs with every floating-point tensor in float64."""

    def widen(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    widened: Inputs = pytree.tree_map_only(Tensor, widen, copy.copy(inputs))
    return widened


def send_back(model: nn.Module, inputs: Inputs) -> None:
    """Run forward, and backward from a projection of all outputs that is always the same one."""
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        outputs = [out for out in tensors(call(model, inputs)) if out.requires_grad]
        directions = [torch.randn(out.shape, generator=generator).to(out) for out in outputs]
        torch.autograd.backward(outputs, directions)


def as_sentence(error: BaseException) -> str:
    """An exception in one line."""
    return f"{first_line(error)}{own_line(error)}"


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Largest error over the largest output; infinite where they are not finite.

    Example:
        >>> relative_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 4.0]))
        0.25
    """
    error, scale = float((found - wanted).abs().max()), float(wanted.abs().max())
    relative = 0.0 if error == 0 else error / scale if scale else math.inf
    return math.inf if math.isnan(relative) else relative
