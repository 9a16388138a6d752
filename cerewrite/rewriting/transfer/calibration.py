"""Running a model on calibration inputs without leaving traces on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import CerewriteError, UsageError, first_line, own_line
from cerewrite.ir.inputs import Inputs
from cerewrite.runtime.alone import alone
from cerewrite.runtime.modes import BATCH_NORMS, called, undisturbed
from cerewrite.runtime.trees import map_tensors, tensors

Visit = Callable[[nn.Module, Tensor, Tensor], Tensor | None]
"""Called with a module, what it read and what it wrote; what it returns is written instead."""


def examples(inputs: Inputs) -> int:
    """Examples in calibration inputs: the first axis, which all tensors must share.

    Raises:
        UsageError: if there are none, they disagree, or a value is not finite.
    """
    found = tensors(inputs)
    sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in found}
    if len(sizes) != 1 or min(sizes) < 2:
        listed = ", ".join(str([*tensor.shape]) for tensor in found) or "no tensor"
        raise UsageError(
            f"calibration inputs need two examples or more, batch first; found {listed}",
            advice="give one batch of examples as the model takes them",
        )
    if not all(bool(tensor.isfinite().all()) for tensor in found if tensor.is_floating_point()):
        raise UsageError(
            "calibration inputs hold values that are not finite",
            advice="leave out the examples with missing values",
        )
    return sizes.pop()


def divide(inputs: Inputs, at: int) -> tuple[Inputs, Inputs]:
    """The first ``at`` examples, and the others."""
    ends = (slice(None, at), slice(at, None))
    first, rest = (map_tensors(itemgetter(end), inputs) for end in ends)
    return first, rest


def outputs(model: nn.Module, inputs: Inputs) -> Tensor:
    """Every floating-point output of a model in evaluation mode, as ``[examples, values]``.

    Raises:
        UsageError: if the model does not take the inputs.
    """
    with undisturbed(model):
        found = [out for out in tensors(_call(model, inputs)) if out.is_floating_point()]
    count = examples(inputs)
    return torch.cat([tensor.double().reshape(count, -1) for tensor in found], 1)


def visit(
    model: nn.Module,
    inputs: Inputs,
    visits: Mapping[str, Visit],
    *,
    norms: Iterable[str] = (),
) -> None:
    """Run a model in evaluation mode and look at some modules' first inputs and outputs.

    Args:
        model: the model; its flags, its random state and its buffers stay as they are.
        inputs: calibration inputs.
        visits: what to call, by qualified name of the module.
        norms: batch norms whose running statistics become those of this batch; these buffers
            are meant to change.

    Raises:
        UsageError: if the model does not take the inputs.
    """
    waiting = set(visits)
    hooks = []

    def look(name: str) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if name not in waiting:
                return None
            waiting.discard(name)
            return visits[name](module, args[0].detach(), output.detach())

        return hook

    try:
        fresh = _tracking(model, norms)
        with undisturbed(model, on_batch=fresh, learning=True):
            for name in visits:
                hooks.append(model.get_submodule(name).register_forward_hook(look(name)))
            _call(model, inputs)
    finally:
        for handle in hooks:
            handle.remove()


def _call(model: nn.Module, inputs: Inputs) -> Any:
    own = map_tensors(lambda tensor: tensor.detach().clone(), inputs)
    try:
        with alone():
            return called(model, own)
    except CerewriteError:  # no memory, or the program was to end: no fault of the inputs
        raise
    except Exception as error:
        shapes = [[*leaf.shape] for leaf in tensors(own)]
        raise UsageError(
            f"the model does not take the calibration inputs {', '.join(map(str, shapes))}: "
            f"{first_line(error)}{own_line(error)}",
            advice="give one batch of examples as the model takes them",
        ) from error


def _tracking(model: nn.Module, names: Iterable[str]) -> set[nn.BatchNorm2d]:
    """The batch norms among these modules that keep running statistics."""
    found = {model.get_submodule(name) for name in names}
    return {norm for norm in found if isinstance(norm, BATCH_NORMS) and norm.track_running_stats}
