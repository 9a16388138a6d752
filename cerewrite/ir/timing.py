"""Measured speed: an original and its rewritten model, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.ranges import Amount, Index, Size, Text, Word

TOLERANCE = 1.05
"""What was built may take this many times a limit: clocks scatter."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One engine at one batch size: medians of interleaved runs, in seconds per call.

    Attributes:
        engine: ``eager``, ``compile``, ``onnxruntime``, or ``step`` for training steps in eager.
        batch: examples per call.
        threads: threads that the engine may use.
        original: median of the original model.
        original_spread: its interquartile range.
        rewritten: median of the rewritten model.
        rewritten_spread: its interquartile range.
        runs: runs behind each median.
        refused: why nothing was measured; "" where it was, and the figures are 0 otherwise.
    """

    engine: Word
    batch: Size
    threads: Size
    original: Amount = 0.0
    original_spread: Amount = 0.0
    rewritten: Amount = 0.0
    rewritten_spread: Amount = 0.0
    runs: Index = 0
    refused: Text = ""

    @property
    def ratio(self) -> float:
        """Rewritten over original: above 1 the rewritten model is slower."""
        return self.rewritten / self.original if self.original else 0.0

    @property
    def slower(self) -> bool:
        """Whether the rewritten model is slower beyond both spreads."""
        noise = self.original_spread + self.rewritten_spread
        return self.rewritten - self.original > noise


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast of time against what the built model measured, as ratios to before.

    Attributes:
        asked: the limit.
        forecast: what the plan was forecast to take.
        measured: the built model's timing.
        rounds: plans that were built and timed until one was within the limit.
        cost: what is limited, ``latency`` or ``step``.
        tolerance: factor by which the measurement may exceed the limit.
    """

    asked: Amount
    forecast: Amount
    measured: Timing
    rounds: Size
    cost: Word = "latency"
    tolerance: Amount = 1.0

    @property
    def excess(self) -> float:
        """The measurement over the limit and its tolerance: at most 1 within it."""
        return self.measured.ratio / (self.tolerance * self.asked)

    @property
    def error(self) -> float:
        """Forecast over measured, less 1."""
        return self.forecast / self.measured.ratio - 1.0

    @property
    def held(self) -> bool:
        """Whether the measured time is within the budget, to 5 %."""
        return self.measured.ratio <= TOLERANCE * self.asked
