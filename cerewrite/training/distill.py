"""`cerewrite.distill`: train a student on its teacher's outputs."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cerewrite.errors import TrainingError, UsageError
from cerewrite.registry import suggest
from cerewrite.rewriting import members as ask_members
from cerewrite.runtime.alone import alone
from cerewrite.runtime.modes import evaluating, modes_kept
from cerewrite.runtime.seeds import seed_for
from cerewrite.training.checkpoint import (
    Progress,
    State,
    copy_state,
    identity,
    load_checkpoint,
    save_checkpoint,
)
from cerewrite.training.losses import LOSSES, Loss, distance

MakeOptimiser = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class Distilled:
    """What `distill` returns; the student itself is trained in place.

    Attributes:
        epochs: epochs run, those before a resumption included.
        steps: optimiser steps taken.
        losses: mean training loss per epoch.
        scores: per epoch the mean loss over the validation loader, or the training loss.
        best: index of the epoch whose weights the student has now.
        stopped: ``epochs`` (all were run) or ``patience`` (no more progress).
        resumed: epochs that came from a checkpoint.
    """

    epochs: int
    steps: int
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    best: int
    stopped: str
    resumed: int = 0


def distill(
    student: nn.Module,
    teacher: nn.Module,
    loader: Iterable[Any],
    *,
    epochs: int = 20,
    optimiser: MakeOptimiser | None = None,
    loss: str | Loss = "mse",
    validation: Iterable[Any] | None = None,
    patience: int = 3,
    tolerance: float = 1e-3,
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    members: bool = False,
) -> Distilled:
    """Train a student, in place, to give its teacher's outputs; labels are not used.

    Ends after ``epochs``, or once ``patience`` epochs have not lowered the best score by the
    share ``tolerance``; the student then has the weights of its best epoch. With a checkpoint
    file the run is saved after every epoch and continues from there when called again: the
    result is the one that an uninterrupted run gives, if the loader draws from torch's global
    random state, which is seeded for every epoch (and put back).

    Args:
        student: trained in training mode; flags are put back.
        teacher: left as it is, run in evaluation mode.
        loader: batches of inputs, ``(inputs, ...)`` or dicts of keyword inputs; iterated anew
            for every epoch.
        epochs: most epochs, at least 1.
        optimiser: makes an optimiser from parameters; Adam at 1e-3 by default.
        loss: ``mse`` (relative squares), ``kl`` (soft labels), or a function of the student's
            and the teacher's output.
        validation: batches on which the score is measured; the training loss without any.
        patience: epochs without progress before the run ends, at least 1.
        tolerance: least relative progress, at least 0.
        checkpoint: a file to write and to resume from.
        seed: of every epoch's random state.
        progress: show a bar on standard error, if that is a terminal.
        members: teach every member of the student by itself, so that each works alone; the loss
            is the mean of theirs (`cerewrite.members`). A warm start fits their sum only.

    Raises:
        UsageError: if an option cannot be used.
        RewriteError: if members are to be taught, and the student's cannot be asked.
        TrainingError: if a loader is empty, outputs do not match, a loss is not finite (the
            student then has the weights of its best epoch, or those it came with), or the
            checkpoint cannot be used; checkpoints stay as they are.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> batches = list(torch.randn(4, 16, 3))
        >>> result = distill(student, teacher, batches, epochs=60, patience=60,
        ...                  optimiser=lambda p: torch.optim.SGD(p, 0.3))
        >>> result.scores[-1] < 0.001 * result.scores[0], result.steps
        (True, 240)
    """
    chosen = _check(epochs, patience, tolerance, loss)
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    if not trained:
        raise UsageError("the student has nothing to train", advice="unfreeze its parameters")
    made = torch.optim.Adam(trained, 1e-3) if optimiser is None else optimiser(trained)
    file = None if checkpoint is None else Path(checkpoint)
    asked = ask_members(student) if members else student
    loop = _Loop(student, asked, teacher, loader, validation, chosen, made, seed)
    if file is not None:
        name = loss if isinstance(loss, str) else getattr(loss, "__qualname__", "own")
        settings = {"loss": name, "optimiser": type(made).__name__, "seed": seed}
        settings |= {"members": True} if members else {}
        loop.run = identity(student, teacher, patience=patience, tolerance=tolerance, **settings)
        if file.exists():
            loop.resume(file)
    resumed = loop.progress.epoch
    with modes_kept(student), evaluating(teacher), _bar(epochs, resumed, progress) as advance:
        while loop.progress.epoch < epochs and not loop.exhausted(patience, tolerance):
            loop.epoch()
            advance(loop.progress)
            if file is not None:
                states = {"student": copy_state(student), "best": loop.best}
                save_checkpoint(file, loop.run, loop.progress, states, made)
    student.load_state_dict(loop.best)
    done = loop.progress
    stopped = "patience" if loop.exhausted(patience, tolerance) else "epochs"
    history = (tuple(done.losses), tuple(done.scores))
    return Distilled(done.epoch, done.step, *history, done.best, stopped, resumed)


def _check(epochs: int, patience: int, tolerance: float, loss: str | Loss) -> Loss:
    """The loss function; refuses options that cannot be used."""
    if epochs < 1 or patience < 1 or not 0 <= tolerance < 1:
        raise UsageError(
            f"epochs {epochs}, patience {patience}, tolerance {tolerance}",
            advice="give at least 1 epoch, a patience of at least 1, a tolerance in [0, 1)",
        )
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise UsageError(f"unknown loss '{loss}'", advice=suggest(loss, LOSSES))
        return LOSSES[loss]
    return loss


class _Loop:
    """One run: its models, its optimiser, how far it has come."""

    def __init__(
        self,
        student: nn.Module,
        asked: nn.Module,
        teacher: nn.Module,
        loader: Iterable[Any],
        validation: Iterable[Any] | None,
        loss: Loss,
        optimiser: torch.optim.Optimizer,
        seed: int,
    ) -> None:
        self.student, self.asked, self.teacher = student, asked, teacher
        self.loader, self.validation = loader, validation
        self.loss, self.optimiser, self.seed = loss, optimiser, seed
        self.progress = Progress()
        self.best: State = copy_state(student)
        self.run: dict[str, Any] = {}

    def resume(self, file: Path) -> None:
        """Continue from a checkpoint."""
        self.progress, states = load_checkpoint(file, self.run, self.optimiser, self.student)
        self.student.load_state_dict(states["student"])
        self.best = states["best"]

    def exhausted(self, patience: int, tolerance: float) -> bool:
        """Whether the last epochs made no progress on the best score before them."""
        scores = self.progress.scores
        if len(scores) <= patience:
            return False
        return min(scores[-patience:]) > min(scores[:-patience]) * (1 - tolerance)

    def epoch(self) -> None:
        """One pass over the loader, then the score; keeps the best weights."""
        number = self.progress.epoch
        with alone():
            torch.manual_seed(seed_for(self.seed, number))
            train = self._pass(self.loader, "loader", number, learn=True)
            score = train
            if self.validation is not None:
                with torch.no_grad():
                    score = self._pass(self.validation, "validation loader", number, learn=False)
        self.progress.epoch += 1
        self.progress.losses.append(train)
        self.progress.scores.append(score)
        if score <= min(self.progress.scores):
            self.progress.best = number
            self.best = copy_state(self.student)

    def _pass(self, batches: Iterable[Any], name: str, number: int, *, learn: bool) -> float:
        """Mean loss over all examples."""
        total, examples = 0.0, 0
        self.asked.train(learn)
        for batch in batches:
            loss, count = distance(self.asked, self.teacher, batch, self.loss)
            value = float(loss.detach())
            if not math.isfinite(value):
                self._give_up(name, number, value)
            if learn:
                self.optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimiser.step()
                self.progress.step += 1
            total, examples = total + value * count, examples + count
        if not examples:
            once = number > 0 or not learn
            raise TrainingError(
                f"the {name} gave no batches in epoch {number + 1}",
                advice="give a list or a DataLoader: it is iterated anew for every epoch"
                if once
                else "give at least one batch",
            )
        return total / examples

    def _give_up(self, name: str, number: int, value: float) -> None:
        self.student.load_state_dict(self.best)
        raise TrainingError(
            f"the loss is {value} on the {name} in epoch {number + 1}, step {self.progress.step}; "
            "the student has its best weights again",
            advice="lower the learning rate, or look for values that are not finite in the data",
        )


@contextlib.contextmanager
def _bar(epochs: int, done: int, wanted: bool) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on standard error; silent when that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda progress: None
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("distilling", total=epochs, completed=done)

        def advance(progress: Progress) -> None:
            text = f"distilling, loss {progress.scores[-1]:.4g}"
            bar.update(task, completed=progress.epoch, description=text)

        yield advance
