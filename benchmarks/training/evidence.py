"""The results file as arrays: one entry per design and optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.training.statistics import Array
from benchmarks.training.store import Record, Store
from benchmarks.training.tasks import TASKS, Task

STUCK = 0.9
"""A run has failed if its final loss is not finite or above this share of a constant's loss."""

OUTCOMES = ("steps", "loss", "error")
"""What is compared: lower is better in each."""

TITLES = {"steps": "steps to the target", "loss": "final loss", "error": "test error"}


@dataclass(frozen=True)
class Entry:
    """A design trained by one optimiser.

    Attributes:
        task: the baseline it belongs to.
        optimiser: its name.
        labels: who chose the design.
        shapes: its regions.
        figures: measures and controls.
        sweep: record of the rate sweep.
        final: record of the reported runs.
    """

    task: Task
    optimiser: str
    labels: tuple[str, ...]
    shapes: Sequence[Sequence[object]]
    figures: dict[str, float]
    sweep: Record
    final: Record

    @cached_property
    def losses(self) -> Array:
        """Final training losses, not above a constant's."""
        return np.minimum(_known(self.final["final"]), self.task.data().chance)

    @cached_property
    def steps(self) -> Array:
        """Steps to the target; one more than were made where it was not reached."""
        found = self.final["steps"][str(self.task.target)]
        return np.array([self.task.steps + 1 if v is None else v for v in found], dtype=float)

    @cached_property
    def reached(self) -> Array:
        """Whether the target was reached."""
        return self.steps <= self.task.steps

    @cached_property
    def accuracy(self) -> Array:
        """Test accuracy; NaN for regressions."""
        return np.array([math.nan if v is None else v for v in self.final["accuracy"]])

    @cached_property
    def test_losses(self) -> Array:
        """Test losses, not above a constant's."""
        return np.minimum(_known(self.final["test_loss"]), self.task.data().chance)

    def outcome(self, name: str) -> Array:
        """Logarithm of steps or loss; the share of test errors, or log test loss; lower is better.

        Args:
            name: one of `OUTCOMES`.
        """
        if name == "steps":
            return np.log(self.steps)
        if name == "loss":
            return np.log(self.losses)
        return np.log(self.test_losses) if self.task.loss == "mse" else 1.0 - self.accuracy

    def failed(self, phase: str) -> tuple[int, int]:
        """Runs that failed and runs, of the ``sweep`` or the ``final`` phase."""
        losses = _known((self.sweep if phase == "sweep" else self.final)["final"])
        return int((losses > STUCK * self.task.data().chance).sum()), len(losses)

    @property
    def rate(self) -> float:
        """The learning rate that the sweep chose."""
        return float(self.final["rates"][0])

    @property
    def at_edge(self) -> bool:
        """Whether that is the lowest or the highest that was tried."""
        rates = self.task.rates[self.optimiser]
        return self.rate in (rates[0], rates[-1])

    @property
    def equal_budget(self) -> bool:
        """Whether it spends the baseline's parameters, or the most that fit under them."""
        return any(not label.startswith(("dual", "narrow")) for label in self.labels)


def _known(values: Iterable[float | None]) -> Array:
    return np.array([math.inf if v is None else v for v in values], dtype=float)


def gather(store: Store) -> list[Entry]:
    """Every design whose runs are complete, in the order of the tasks."""
    entries = []
    for record in filter(lambda r: r["labels"], store.of("design")):
        for optimiser in ("sgd", "adam"):
            key = {"task": record["task"], "design": record["design"], "optimiser": optimiser}
            sweep, final = (store.get(kind="stack", phase=p, **key) for p in ("sweep", "final"))
            if sweep is None or final is None:
                continue
            entries.append(
                Entry(
                    TASKS[record["task"]],
                    optimiser,
                    tuple(record["labels"]),
                    record["shapes"],
                    record["figures"],
                    sweep,
                    final,
                )
            )
    order = list(TASKS)
    return sorted(entries, key=lambda e: (order.index(e.task.name), e.optimiser != "sgd"))


def find(entries: Sequence[Entry], task: str, optimiser: str, label: str) -> Entry | None:
    """The design of that label."""
    return next(
        (
            e
            for e in entries
            if e.task.name == task and e.optimiser == optimiser and label in e.labels
        ),
        None,
    )
