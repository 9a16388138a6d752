"""How far a student's outputs are from its teacher's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cerewrite.errors import TrainingError
from cerewrite.rewriting.members import Members
from cerewrite.runtime.trees import map_tensors, tensors

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of the student's and the teacher's output: a scalar, 0 where they agree."""

TEMPERATURE = 2.0


def relative_square(student: Tensor, teacher: Tensor) -> Tensor:
    """``|s - t|^2 / |t|^2``, dimensionless, at least 0.

    Example:
        >>> float(relative_square(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])))
        0.25
    """
    return (student - teacher).square().sum() / teacher.square().sum().clamp_min(1e-30)


def soft_labels(student: Tensor, teacher: Tensor) -> Tensor:
    """``T^2 KL(softmax(t / T) | softmax(s / T))`` over the last axis, in nats; T is 2.

    References:
        Hinton et al., Distilling the Knowledge in a Neural Network (arXiv 1503.02531).
    """
    scores = F.log_softmax(student / TEMPERATURE, -1)
    goals = F.log_softmax(teacher / TEMPERATURE, -1)
    rows = goals.numel() // goals.shape[-1]
    return F.kl_div(scores, goals, reduction="sum", log_target=True) * TEMPERATURE**2 / rows


LOSSES: Mapping[str, Loss] = {"mse": relative_square, "kl": soft_labels}


def batch_inputs(batch: Any, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs of a loader's batch; of a sequence, its first item.

    Raises:
        TrainingError: if there is no tensor in it.
    """
    taken = batch[0] if isinstance(batch, tuple | list) and batch else batch
    moved = map_tensors(lambda tensor: tensor.to(device), taken)
    if not tensors(moved):
        raise TrainingError(
            f"a batch of the loader is a {type(batch).__name__} without a tensor in front",
            advice="yield inputs, (inputs, ...) or a dict of keyword inputs",
        )
    return ((), dict(moved)) if isinstance(moved, Mapping) else ((moved,), {})


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are; the CPU if it has none."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def distance(student: nn.Module, teacher: nn.Module, batch: Any, loss: Loss) -> tuple[Tensor, int]:
    """The loss on one batch, summed over the outputs, and the examples in it.

    Of a student that is asked for its members it is the mean of the members' own losses.

    Raises:
        TrainingError: if the two models' outputs differ in number or shape.
    """
    args, kwargs = batch_inputs(batch, device_of(teacher))
    with torch.no_grad():
        wanted = _outputs(teacher(*args, **kwargs))
    args, kwargs = batch_inputs(batch, device_of(student))
    found = _outputs(student(*args, **kwargs))
    members = student.count if isinstance(student, Members) else 1
    if isinstance(student, Members):
        wanted = [tensor.expand(members, *tensor.shape) for tensor in wanted]
    shapes = [[[*tensor.shape] for tensor in side] for side in (found, wanted)]
    if shapes[0] != shapes[1] or not found:
        raise TrainingError(
            f"the student's outputs {shapes[0]} are not those of the teacher {shapes[1]}",
            advice="distil from the model that the student was made from",
        )
    if isinstance(student, Members):
        found, wanted = ([t for tensor in side for t in tensor] for side in (found, wanted))
    pairs = zip(found, wanted, strict=True)
    total = sum((loss(s, t.to(s.device, s.dtype)) for s, t in pairs), found[0].new_zeros(()))
    return total / members, found[0].shape[0] if found[0].dim() else 1


def _outputs(tree: Any) -> list[Tensor]:
    return [tensor for tensor in tensors(tree) if tensor.is_floating_point()]
