"""What looks at a model every so many steps of any training loop."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from torch import Tensor, nn

from cerewrite import ir, output
from cerewrite.errors import UsageError

PathLike = str | os.PathLike[str]
R = TypeVar("R")


class Callback(ABC, Generic[R]):
    """Counts steps and looks when it is time. Call `step` once after every optimiser step.

    Args:
        model: the model, as it is when training begins; it is left as it is.
        every: steps between two looks, at least 1.

    Raises:
        UsageError: if ``every`` is below 1.
    """

    def __init__(self, model: nn.Module, every: int) -> None:
        if every < 1:
            raise UsageError(f"every is {every}", advice="look every 1 step or more")
        self.model, self.every = model, every
        self._steps = 0
        self._readings: list[R] = []

    @property
    def readings(self) -> tuple[R, ...]:
        """What was seen so far, in order; the first is the state when this was made."""
        return tuple(self._readings)

    def step(self, loss: Tensor | float | None = None) -> R | None:
        """Count one step; look if it is time.

        Args:
            loss: the step's loss; read only when it is looked at, so it costs no
                synchronisation otherwise. Values that are not finite are recorded as they are.

        Returns:
            The reading, or None between two looks.
        """
        self._steps += 1
        if self._steps % self.every:
            return None
        value = float(loss.detach()) if isinstance(loss, Tensor) else loss
        reading = self.look(self._steps, value)
        self._readings.append(reading)
        return reading

    @abstractmethod
    def look(self, step: int, loss: float | None) -> R:
        """What is seen now."""

    def save(self, path: PathLike) -> None:
        """Write the readings as JSON, whole or not at all; an earlier file is replaced.

        Raises:
            OutputError: if it cannot be written.
        """
        output.write_file(path, ir.dumps(self.readings), overwrite=True)
