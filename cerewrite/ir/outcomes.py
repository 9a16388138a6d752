"""Outcomes that are values: rejections, checks, verifications."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.ranges import Amount, Extended, Index, Note, Size, Text, Word
from cerewrite.ir.shown import Shown


@dataclass(frozen=True, slots=True)
class Rejection:
    """An expected refusal: why something was left as it is.

    Attributes:
        where: qualified name of the layer, width class or operator.
        code: short stable identifier, such as ``one-hidden-layer``.
        reason: why, in one sentence.
        advice: what the user can do about it.
    """

    where: Text
    code: Text
    reason: Text
    advice: Text


@dataclass(frozen=True, slots=True)
class Check:
    """One verified property of a rewritten model.

    Attributes:
        name: which property.
        passed: whether it holds.
        detail: one sentence with the figures.
        value: the measured figure (an error, a count), if there is one.
        limit: the limit it was held against, if there is one.
    """

    name: Text
    passed: bool
    detail: Text
    value: Extended | None = None
    limit: Extended | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """What a plan promises of a measure, and what the rewritten model has, over the original's.

    Attributes:
        measure: ``log-variance`` or ``nu``: the plan's, or log-variance where that is no measured
            figure.
        promised: rewritten over original, as planned.
        measured: the same by drawing both models' weights on common random numbers.
        stderr: standard error of ``measured``.
        draws: pairs of draws behind it.
        plans: plans that were made: 2 where the first one's promise was not kept.
        refused: why nothing was measured; "" if it was.
    """

    measure: Word
    promised: Amount
    measured: Amount = 0.0
    stderr: Amount = 0.0
    draws: Index = 0
    plans: Size = 1
    refused: Note = ""

    @property
    def broken(self) -> bool:
        """Whether promise and measurement differ beyond 3 standard errors and 20 %."""
        off = abs(self.measured - self.promised)
        return not self.refused and off > max(3 * self.stderr, 0.2 * self.promised)

    @property
    def worse(self) -> bool:
        """Whether the rewritten model is worse than original and promise, beyond errors."""
        least = self.measured - 3 * self.stderr
        return not self.refused and least > max(1.0, 1.2 * self.promised)


@dataclass(frozen=True, slots=True)
class Verification(Shown):
    """Every check that was run on a rewritten model; all results are kept."""

    checks: tuple[Check, ...]

    def __repr__(self) -> str:
        """How many checks passed, and the names of those that failed."""
        failed = ", ".join(check.name for check in self.failures)
        passed = f"{len(self.checks) - len(self.failures)} of {len(self.checks)} checks passed"
        return f"Verification({passed}{f'; FAILED: {failed}' if failed else ''})"

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)
