"""Typed errors: each says what went wrong, why, and what to do, and owns an exit code.

Three channels are kept apart. An expected refusal (this layer cannot be split) is a
`cerewrite.ir.Rejection` inside a result; a wrong input or an impossible request is one of
the errors below; a broken invariant of our own is an `AssertionError`.
"""

from __future__ import annotations

from typing import ClassVar


class CerewriteError(Exception):
    """Base of every error that a user can cause or mend.

    Args:
        message: what went wrong, naming the thing (qualified name, numbers) and the reason.
        advice: what to do about it; one sentence, imperative.

    Example:
        >>> error = LoadError("model.py: no such file", advice="check the path")
        >>> print(error)
        model.py: no such file
          -> check the path
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, advice: str) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.advice}"


class UsageError(CerewriteError):
    """A request that contradicts itself or names an unknown choice."""

    exit_code = 2


class UnknownOptionError(UsageError, TypeError):
    """A keyword argument that a verb does not take."""


class LoadError(CerewriteError):
    """The model could not be found, imported or built."""

    exit_code = 3


class TraceError(CerewriteError):
    """No rung of the tracing ladder could see the model."""

    exit_code = 4


class AnalysisError(CerewriteError):
    """An estimator cannot make its estimate."""

    exit_code = 5


class NoClosedFormError(AnalysisError):
    """The closed form has no rule for an operator; estimators that measure need none."""

    ADVICE = "measure with --estimator jackknife, or register a rule for the operator"


class PlanError(CerewriteError):
    """A plan cannot be made, read or applied."""

    exit_code = 6


class InfeasibleBudgetError(PlanError):
    """The budget lies outside what any plan can reach; the message gives the range."""


class NothingGainedError(PlanError):
    """No design is better within the limits: what would be written is a copy of the original."""


class StalePlanError(PlanError):
    """The plan was made for another model, or has been applied already."""


class RewriteError(CerewriteError):
    """A pass's precondition or postcondition failed."""

    exit_code = 7


class VerificationError(CerewriteError):
    """The rewritten model failed one of its checks."""

    exit_code = 8


class ExportError(CerewriteError):
    """The ONNX file could not be written, read back or matched."""

    exit_code = 9


class OutputError(CerewriteError):
    """The output folder exists, cannot be written, or holds foreign or damaged files."""

    exit_code = 10


class TrainingError(CerewriteError):
    """A training run cannot begin, go on or be resumed."""

    exit_code = 11
