"""A monitor for any training loop: kernel drift, gradient norm, loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite import output
from cerewrite.errors import UsageError
from cerewrite.reporter.curves import Curve, curves_chart
from cerewrite.training.callback import Callback, PathLike
from cerewrite.diagnostics.gram import gram


@dataclass(frozen=True, slots=True)
class Reading:
    """What the monitor saw at one step.

    Attributes:
        step: optimiser steps taken; 0 is the state when the monitor was made.
        drift: ``|K_t - K_0| / |K_0|`` in the Frobenius norm, at least 0.
        trace: trace of K_t.
        loss: the loss handed over; None if there was none.
        gradient: norm of all gradients as the step left them; None if there were none.
    """

    step: int
    drift: float
    trace: float
    loss: float | None = None
    gradient: float | None = None


class KernelMonitor(Callback[Reading]):
    """Looks at a model every so many steps of a training loop, and leaves no trace on it.

    Call `step` once after every optimiser step. The kernel is that of
    `cerewrite.training.gram` on the same probes throughout; a small drift means that training
    stays in the kernel regime, where nu describes it (docs/theory.md, sections 1 and 10). Cost of a
    look: one forward and a backward per probe; ``python -m benchmarks.monitor`` measures it.

    Args:
        model: the model, as it is when training begins: this is K_0.
        probes: a batch of two inputs or more; four to eight are enough.
        every: steps between two looks, at least 1.
        seed: of the read-out vector.

    Raises:
        UsageError: if the probes cannot be used, or the kernel at the start is zero.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
        >>> monitor = KernelMonitor(model, torch.randn(4, 3), every=5)
        >>> optimiser = torch.optim.SGD(model.parameters(), 0.1)
        >>> for _ in range(10):
        ...     optimiser.zero_grad()
        ...     loss = (model(torch.ones(8, 3)) - 1).square().mean()
        ...     loss.backward()
        ...     optimiser.step()
        ...     reading = monitor.step(loss)
        >>> [reading.step for reading in monitor.readings]
        [0, 5, 10]
        >>> monitor.readings[0].drift, 0 < monitor.readings[2].drift < 1
        (0.0, True)
    """

    def __init__(self, model: nn.Module, probes: Any, *, every: int = 100, seed: int = 0) -> None:
        super().__init__(model, every)
        self._seed = seed
        given = probes if isinstance(probes, tuple | Mapping) else (probes,)
        self._probes: Any = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), given)
        sizes = [leaf.shape[0] for leaf in pytree.tree_leaves(given) if _has_batch(leaf)]
        if not sizes or sizes[0] < 2:
            raise UsageError(
                f"the probes hold {sizes[0] if sizes else 0} examples",
                advice="give a batch of two inputs or more, batch first",
            )
        self._first = gram(model, self._probes, seed)
        self._norm = float(self._first.norm())
        if not 0 < self._norm < float("inf"):
            raise UsageError(
                f"the kernel at the start has norm {self._norm}: there is nothing to drift from",
                advice="check for zero-initialised heads and for values that are not finite",
            )
        self._readings.append(Reading(0, 0.0, float(self._first.trace())))

    def look(self, step: int, loss: float | None) -> Reading:
        """Drift, trace and gradient norm as they are now."""
        kernel = gram(self.model, self._probes, self._seed)
        return Reading(
            step=step,
            drift=float((kernel - self._first).norm()) / self._norm,
            trace=float(kernel.trace()),
            loss=loss,
            gradient=self._gradient(),
        )

    def _gradient(self) -> float | None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not gradients:
            return None
        return float(torch.stack([g.detach().norm().double().cpu() for g in gradients]).norm())

    def plot(self, path: PathLike) -> None:
        """Write drift, loss and gradient norm over the steps as an SVG file.

        Raises:
            OutputError: if it cannot be written.
        """
        found = self._readings
        curves = [
            Curve(title, tuple((r.step, getattr(r, key)) for r in found if _given(r, key)))
            for title, key in (
                ("kernel drift |K - K0| / |K0|", "drift"),
                ("loss", "loss"),
                ("gradient norm", "gradient"),
            )
        ]
        output.write_file(path, curves_chart(curves, "steps"), overwrite=True)


def _has_batch(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0


def _given(reading: Reading, key: str) -> bool:
    return getattr(reading, key) is not None
