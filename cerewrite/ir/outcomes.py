"""Outcomes that are values: rejections, checks, verifications."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.ranges import Extended, Text


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
class Verification:
    """Every check that was run on a rewritten model; all results are kept."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)
