"""Diagnostics as a callback: how they change in training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from cerewrite import diagnostics
from cerewrite.diagnostics.material import Loss
from cerewrite.frontend import tracing
from cerewrite.ir.diagnosed import Diagnosis
from cerewrite.runtime.modes import buffers_kept
from cerewrite.runtime.trees import map_tensors
from cerewrite.training.callback import Callback


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """What the diagnostics said at one step.

    Attributes:
        step: optimiser steps taken; 0 is the state when the monitor was made.
        diagnosis: of the weights as they stood.
        loss: the loss handed over; None if there was none.
    """

    step: int
    diagnosis: Diagnosis
    loss: float | None = None


class DiagnosticMonitor(Callback[Diagnosed]):
    """Any of the registered diagnostics, every so many steps of a training loop.

    `KernelMonitor` is its neighbour for the drift of the kernel from the start.

    Args:
        model: the model, as it is when training begins.
        inputs: a batch on which it is looked at: a tensor, a tuple or a dict, batch first.
        targets: of the batch, where a diagnostic needs a loss.
        only: names of diagnostics; all without.
        loss: as for `cerewrite.diagnose`.
        every: steps between two looks, at least 1.

    Raises:
        UsageError: see `cerewrite.diagnose`.
        TraceError: if the model cannot be traced.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> x, y = torch.randn(8, 3), torch.tensor([0, 1] * 4)
        >>> monitor = DiagnosticMonitor(model, x, y, only=["gradient-confusion"], every=5)
        >>> optimiser = torch.optim.SGD(model.parameters(), 0.1)
        >>> for _ in range(10):
        ...     optimiser.zero_grad()
        ...     loss = nn.functional.cross_entropy(model(x), y)
        ...     loss.backward()
        ...     optimiser.step()
        ...     reading = monitor.step(loss)
        >>> [reading.step for reading in monitor.readings]
        [0, 5, 10]
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        targets: Any = None,
        *,
        only: Iterable[str] = (),
        loss: Loss | None = None,
        every: int = 100,
    ) -> None:
        super().__init__(model, every)
        given = inputs if isinstance(inputs, tuple | dict) else (inputs,)
        kept: Any = map_tensors(lambda t: t.detach().clone(), (given, targets))
        self._inputs, self._targets = kept
        self._loss, self._only = loss, tuple(only)
        with buffers_kept(model):
            self._traced = tracing.trace(model, self._inputs)
        self._readings.append(self.look(0, None))

    def look(self, step: int, loss: float | None) -> Diagnosed:
        """The diagnosis of the weights as they stand."""
        with buffers_kept(self.model):
            found = diagnostics.diagnose(
                self._traced,
                self.model,
                self._inputs,
                targets=self._targets,
                loss=self._loss,
                draws=0,
                only=self._only,
            )
        return Diagnosed(step, found, loss)
