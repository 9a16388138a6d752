"""Train many copies of one design at once: modules stacked over seeds and learning rates.

The copies share nothing but the arithmetic: each has its own weights, batches, norm statistics
and rate, and `tests/benchmarks/test_training.py` holds the result against separate runs with
`torch.optim`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from benchmarks.training.data import Data

WINDOW = 10
"""Batches over which the running loss is averaged."""

MOMENTUM = 0.9
BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        optimiser: ``sgd`` (momentum 0.9) or ``adam``.
        steps: updates.
        batch: examples per update, drawn without replacement within an epoch.
        loss: ``cross-entropy`` or ``mse``.
    """

    optimiser: str
    steps: int
    batch: int
    loss: str


@dataclass(frozen=True)
class Outcome:
    """What came of one training run.

    Attributes:
        curve: running training loss after each step: mean of the last 10 batches.
        final: mean batch loss over the last tenth of the steps; infinite if any is not finite.
        test_loss: loss on the test set, in eval mode.
        accuracy: share of the test set that is classified rightly; NaN for regressions.
    """

    curve: tuple[float, ...]
    final: float
    test_loss: float
    accuracy: float

    def steps_to(self, loss: float) -> int | None:
        """The first step (from 1) after which the running loss is at most ``loss``, if any."""
        return next((i + 1 for i, value in enumerate(self.curve) if value <= loss), None)


class Stack:
    """Stacked modules: all parameters in one matrix, one row per copy.

    Args:
        models: modules of one architecture.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        parameters, buffers = stack_module_state(list(models))
        self.copies = len(models)
        self.shapes = {name: value.shape for name, value in parameters.items()}
        rows = [value.detach().flatten(1) for value in parameters.values()]
        self.sizes = [row.shape[1] for row in rows]
        self.flat = torch.cat(rows, 1).requires_grad_()
        self.buffers = {name: value.clone() for name, value in buffers.items()}
        self.skeleton = copy.deepcopy(models[0]).to("meta")

    def __call__(self, x: Tensor) -> Tensor:
        """Every copy on inputs of its own: ``[copies, batch, ...]``."""
        parts = torch.split(self.flat, self.sizes, dim=1)
        named = {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.skeleton, (parameters, buffers), (x,))

        return vmap(one)(named, self.buffers, x)


def losses(outputs: Tensor, targets: Tensor, kind: str) -> Tensor:
    """Mean loss of each copy, ``[copies]``; outputs ``[copies, batch, outputs]``."""
    if kind == "mse":
        return (outputs - targets).square().mean(dim=(1, 2))
    each = nn.functional.cross_entropy(
        outputs.flatten(0, 1), targets.flatten(0, 1), reduction="none"
    )
    return each.view(targets.shape).mean(1)


def make_update(recipe: Recipe, flat: Tensor, rates: Tensor) -> Callable[[int], None]:
    """The optimiser's step on all copies, ``torch.optim.SGD``'s or ``Adam``'s arithmetic.

    Args:
        recipe: names the optimiser.
        flat: parameters ``[copies, parameters]``, with a gradient when the step is made.
        rates: learning rate of each copy, ``[copies]``.
    """
    rates = rates[:, None]
    first, second = torch.zeros_like(flat), torch.zeros_like(flat)

    def sgd(step: int) -> None:
        first.mul_(MOMENTUM).add_(flat.grad)
        flat.data.sub_(rates * first)

    def adam(step: int) -> None:
        first.lerp_(flat.grad, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(flat.grad, flat.grad, value=1 - BETAS[1])
        scale = (second.sqrt() / math.sqrt(1 - BETAS[1] ** step)).add_(EPSILON)
        flat.data.sub_(rates / (1 - BETAS[0] ** step) * first / scale)

    return {"sgd": sgd, "adam": adam}[recipe.optimiser]


def batches(seed: int, examples: int, recipe: Recipe) -> Tensor:
    """Indices ``[steps, batch]``: epochs of shuffled examples, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    per_epoch = examples // recipe.batch
    epochs = -(-recipe.steps // per_epoch)
    orders = [
        torch.randperm(examples, generator=generator)[: per_epoch * recipe.batch]
        for _ in range(epochs)
    ]
    return torch.cat(orders).view(-1, recipe.batch)[: recipe.steps]


def train(
    models: Sequence[nn.Module],
    seeds: Sequence[int],
    rates: Sequence[float],
    data: Data,
    recipe: Recipe,
) -> list[Outcome]:
    """Train one copy per model, seed of its batches and rate.

    Args:
        models: initialised modules of one architecture; left as they are.
        seeds: seed of each copy's batches.
        rates: learning rate of each copy.
        data: what to train and test on.
        recipe: how.
    """
    stack = Stack(models)
    stack.skeleton.train()
    update = make_update(recipe, stack.flat, torch.tensor(rates, dtype=stack.flat.dtype))
    order = torch.stack([batches(seed, len(data.x), recipe) for seed in seeds], 1)
    history = []
    for step, index in enumerate(order, 1):
        loss = losses(stack(data.x[index]), data.y[index], recipe.loss)
        stack.flat.grad = None
        loss.sum().backward()
        update(step)
        history.append(loss.detach())
    return _outcomes(stack, torch.stack(history, 1).double(), data, recipe)


def _outcomes(stack: Stack, history: Tensor, data: Data, recipe: Recipe) -> list[Outcome]:
    """Curves and figures; ``history`` is ``[copies, steps]``."""
    stack.skeleton.eval()
    with torch.no_grad():
        x = data.test_x.expand(stack.copies, *data.test_x.shape)
        y = data.test_y.expand(stack.copies, *data.test_y.shape)
        outputs = stack(x)
        test = losses(outputs, y, recipe.loss).tolist()
        right = [float("nan")] * stack.copies
        if recipe.loss == "cross-entropy":
            right = (outputs.argmax(-1) == y).double().mean(1).tolist()
    total = torch.nn.functional.pad(history.cumsum(1), (1, 0))
    ends = torch.arange(1, history.shape[1] + 1)
    starts = (ends - WINDOW).clamp(min=0)
    running = (total[:, ends] - total[:, starts]) / (ends - starts)
    final = history[:, -max(recipe.steps // 10, 1) :].mean(1)
    final = torch.where(history.isfinite().all(1), final, torch.inf)
    return [
        Outcome(tuple(curve), float(end), loss, share)
        for curve, end, loss, share in zip(running.tolist(), final, test, right, strict=True)
    ]
