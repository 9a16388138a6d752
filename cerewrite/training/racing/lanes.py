"""Train a race's lanes: from the state that is kept to so many steps, and keep it again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import CerewriteError, TrainingError, UsageError
from cerewrite.registry import suggest
from cerewrite.runtime.alone import alone
from cerewrite.runtime.modes import evaluating, modes_kept
from cerewrite.training.checkpoint import (
    Progress,
    copy_state,
    load_checkpoint,
    save_checkpoint,
)
from cerewrite.training.losses import device_of
from cerewrite.training.racing.data import Batch, Data, arguments, moved, user_failure
from cerewrite.training.racing.schedule import Job, Point

Loss = Callable[[Any, Any], Tensor]
"""Of a model's output and the targets: a scalar."""

MakeOptimiser = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]
"""Of parameters and a learning rate."""

Build = Callable[[int], nn.Module]
"""A model with fresh weights of a seed."""

OPTIMISERS: Mapping[str, tuple[MakeOptimiser, tuple[float, ...]]] = {
    "sgd": (
        lambda parameters, rate: torch.optim.SGD(parameters, rate, momentum=0.9),
        (0.003, 0.01, 0.03, 0.1),
    ),
    "adam": (
        lambda parameters, rate: torch.optim.Adam(parameters, rate),
        (3e-4, 1e-3, 3e-3, 1e-2),
    ),
    "adamw": (
        lambda parameters, rate: torch.optim.AdamW(parameters, rate),
        (3e-4, 1e-3, 3e-3, 1e-2),
    ),
}
"""Optimisers by name, and the rates that are tried where none are given."""


def find_optimiser(name: str | MakeOptimiser) -> tuple[MakeOptimiser, tuple[float, ...], str]:
    """What makes an optimiser, the rates to try, and its name.

    Raises:
        UsageError: if there is none of that name.

    Example:
        >>> find_optimiser("sgd")[1:]
        ((0.003, 0.01, 0.03, 0.1), 'sgd')
    """
    if not isinstance(name, str):
        return name, (), getattr(name, "__qualname__", type(name).__qualname__)
    if name not in OPTIMISERS:
        raise UsageError(f"unknown optimiser '{name}'", advice=suggest(name, OPTIMISERS))
    return *OPTIMISERS[name], name


@dataclass(frozen=True, slots=True)
class Task:
    """What designs are trained on.

    Attributes:
        data: batches, and the held-out part.
        loss: of outputs and targets.
        optimiser: makes one.
    """

    data: Data
    loss: Loss
    optimiser: MakeOptimiser

    def loss_of(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any, Any]:
        """The loss on a batch, the outputs, and the targets on their device.

        Raises:
            TrainingError: if the model or the loss raises, or the loss is no scalar.
        """
        inputs, targets = moved(batch, device_of(model))
        args, kwargs = arguments(inputs)
        try:
            outputs = model(*args, **kwargs)
        except CerewriteError:
            raise
        except Exception as error:
            raise user_failure("the model raises on a batch of the data", error) from error
        try:
            loss = self.loss(outputs, targets)
        except Exception as error:
            raise user_failure("the loss raises on a batch of the data", error) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise TrainingError(
                f"the loss is {_shown(loss)}, not a scalar tensor", advice="return its mean"
            )
        return loss.reshape(()), outputs, targets


def check_task(model: nn.Module, task: Task) -> float:
    """The loss of a model on its first batch, before anything is trained.

    Raises:
        TrainingError: if the data do not fit the model or the loss, or it is not finite, or no
            parameter gets a gradient.
    """
    with alone(), torch.enable_grad(), modes_kept(model):
        model.train()
        loss, _, _ = task.loss_of(model, next(task.data.stream(0, 0)))
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(
                f"the loss is {float(loss.detach())} on the first batch, before any step",
                advice="look for values that are not finite in the data, the model and the loss",
            )
        if not loss.requires_grad:
            raise TrainingError(
                "the loss does not depend on the model's parameters",
                advice="check for detached or no_grad code, and frozen parameters",
            )
        return float(loss.detach())


def judged(model: nn.Module, task: Task) -> tuple[float, float | None]:
    """Mean held-out loss over the examples, and accuracy where the targets are classes."""
    total, right, rows, examples = 0.0, 0, 0, 0
    with torch.no_grad(), evaluating(model):
        for batch in task.data.test:
            loss, outputs, targets = task.loss_of(model, batch)
            count = len(targets) if isinstance(targets, Tensor) and targets.dim() else 1
            total, examples = total + float(loss) * count, examples + count
            if _classes(outputs, targets):
                right += int((outputs.argmax(1) == targets).sum())
                rows += targets.numel()
    return total / examples, right / rows if rows else None


def training_step(model: nn.Module, task: Task, rate: float) -> Callable[[], object]:
    """One whole optimiser step on one batch, to be timed; the model is trained by it."""
    optimiser = task.optimiser([p for p in model.parameters() if p.requires_grad], rate)
    batch = next(task.data.stream(0, 0))
    model.train()

    def run() -> float:
        with torch.enable_grad():
            return _step(model, task, batch, optimiser)

    return run


class Trainer:
    """Brings lanes forward. A lane starts from its file, so nothing is lost when a run is killed.

    Args:
        builds: by design.
        task: what they train on.
        state_of: where the state of a lane is kept.
        race: what tells this race's states from another's.
    """

    def __init__(
        self,
        builds: Mapping[str, Build],
        task: Task,
        state_of: Callable[[Any], Path],
        race: Mapping[str, Any],
    ) -> None:
        self.builds, self.task, self.state_of, self.race = builds, task, state_of, race
        self._models: dict[str, nn.Module] = {}

    def advance(self, job: Job) -> tuple[Point, float]:
        """Train a lane up to a job's steps; the point reached, and the seconds it took.

        Raises:
            TrainingError: if the model or the loss raises, or its state cannot be kept.
        """
        began = time.perf_counter()
        with alone(), torch.enable_grad():
            model, optimiser, progress, run = self._resumed(job)
            train = self._train(model, optimiser, progress, job)
            if train is None:
                return Point(None, failed=True), time.perf_counter() - began
            if progress.losses != [train]:
                progress.step, progress.losses = job.steps, [train]
                states = {"student": copy_state(model)}
                save_checkpoint(self.state_of(job.lane), run, progress, states, optimiser)
            loss, metric = judged(model, self.task) if job.judged else (None, None)
        failed = loss is not None and not math.isfinite(loss)
        point = Point(train, None if failed else loss, metric, failed)
        return point, time.perf_counter() - began

    def _resumed(
        self, job: Job
    ) -> tuple[nn.Module, torch.optim.Optimizer, Progress, dict[str, Any]]:
        """A lane as it was left, or fresh."""
        lane, file = job.lane, self.state_of(job.lane)
        run = {**self.race, "lane": [lane.design, lane.rate, lane.seed]}
        if not file.exists() or lane.design not in self._models:
            self._models[lane.design] = self.builds[lane.design](lane.seed)
        model = self._models[lane.design].train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = self.task.optimiser(trained, lane.rate)
        if not file.exists():
            return model, optimiser, Progress(), run
        progress, states = load_checkpoint(file, run, optimiser, model)
        model.load_state_dict(states["student"])
        return model, optimiser, progress, run

    def _train(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress, job: Job
    ) -> float | None:
        """Mean loss over the last tenth of the steps, as far as trained now; None: diverged."""
        if progress.step >= job.steps:
            return progress.losses[-1]
        losses: list[float] = []
        batches = self.task.data.stream(job.lane.seed, progress.step)
        for _ in range(progress.step, job.steps):
            losses.append(_step(model, self.task, next(batches), optimiser))
            if not math.isfinite(losses[-1]):
                return None
        last = losses[-max(1, job.steps // 10) :]
        return math.fsum(last) / len(last)


def _step(model: nn.Module, task: Task, batch: Batch, optimiser: torch.optim.Optimizer) -> float:
    loss, _, _ = task.loss_of(model, batch)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def _classes(outputs: Any, targets: Any) -> bool:
    """Whether targets are class indices of outputs ``[batch, classes, ...]``."""
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and not targets.is_floating_point()
        and outputs.dim() == targets.dim() + 1
        and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    )


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"of type {type(value).__name__}"
