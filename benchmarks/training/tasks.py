"""What is trained on what: baselines, recipes, rates to try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from benchmarks.training import models
from benchmarks.training.data import Data, digits, teacher, textures
from benchmarks.training.stacked import Recipe

STEEP = {"sgd": (0.001, 0.003, 0.01, 0.03, 0.1), "adam": (0.0003, 0.001, 0.003, 0.01)}
"""Learning rates of networks without norms."""

NORMED = {"sgd": (0.01, 0.03, 0.1, 0.3), "adam": (0.001, 0.003, 0.01, 0.03)}
"""Learning rates of networks with batch norms."""


@dataclass(frozen=True)
class Task:
    """One baseline on one data set.

    Attributes:
        name: of the task.
        family: tasks of one family share data and loss, so that their outcomes compare.
        title: for the document.
        build: makes the baseline, weights drawn from torch's global generator.
        data: makes the data.
        depth: sampled layers before the read-out.
        steps: updates of every run.
        target: the training loss that runs race to.
        rates: learning rates to try, per optimiser.
        loss: ``cross-entropy`` or ``mse``.
        batch: examples per update.
    """

    name: str
    family: str
    title: str
    build: Callable[[], nn.Module]
    data: Callable[[], Data]
    depth: int
    steps: int
    target: float
    rates: dict[str, tuple[float, ...]]
    loss: str = "cross-entropy"
    batch: int = 32

    def recipe(self, optimiser: str) -> Recipe:
        """How to train with one optimiser."""
        return Recipe(optimiser, self.steps, self.batch, self.loss)


def _digits_mlp(depth: int, width: int) -> Task:
    return Task(
        f"mlp{depth}x{width}",
        "digits, MLP",
        f"digits, ReLU MLP of {depth} x {width}",
        partial(models.mlp, 64, depth, width, 10),
        digits,
        depth,
        steps=200 if depth <= 8 else 400,
        target=0.3,
        rates=STEEP,
    )


def _digits_cnn(depth: int, width: int) -> Task:
    return Task(
        f"cnn{depth}x{width}",
        "digits, CNN",
        f"digits, plain CNN of {depth} x {width} channels, no norm",
        partial(models.plain_cnn, 1, depth, width, 10, norm=False),
        partial(digits, images=True),
        depth,
        steps=200 if depth <= 8 else 300,
        target=0.3,
        rates=STEEP,
    )


def _digits_residual(blocks: int, stream: int, width: int) -> Task:
    return Task(
        f"res{blocks}x{width}",
        "digits, residual CNN",
        f"digits, residual CNN of {blocks} bottlenecks {stream} - {width} - {width} - {stream}, "
        "batch norm",
        partial(models.residual_cnn, 1, blocks, stream, width, 10),
        partial(digits, images=True),
        3 * blocks + 1,
        steps=150,
        target=0.3,
        rates=NORMED,
    )


def _teacher(depth: int, width: int) -> Task:
    return Task(
        f"teacher{depth}x{width}",
        "teacher",
        f"teacher-student regression, ReLU MLP of {depth} x {width}",
        partial(models.mlp, 24, depth, width, 4),
        teacher,
        depth,
        steps=300,
        target=0.5,
        loss="mse",
        rates=STEEP,
    )


def _textures(depth: int, width: int) -> Task:
    return Task(
        f"texture{depth}x{width}",
        "textures",
        f"synthetic textures, CNN of {depth} x {width} channels, batch norm",
        partial(models.plain_cnn, 3, depth, width, 8, norm=True),
        textures,
        depth,
        steps=200,
        target=0.5,
        rates=NORMED,
    )


TASKS = {
    task.name: task
    for task in (
        _digits_mlp(4, 128),
        _digits_mlp(6, 96),
        _digits_mlp(12, 64),
        _digits_mlp(16, 48),
        _digits_mlp(24, 48),
        _digits_cnn(6, 24),
        _digits_cnn(12, 16),
        _digits_residual(4, 32, 16),
        _teacher(6, 96),
        _textures(4, 32),
    )
}
"""Every task by name, in the document's order."""

OPTIMISERS = ("sgd", "adam")
