"""Typed errors: each says what went wrong, why, and what to do, and owns an exit code.

Three channels are kept apart. An expected refusal (this layer cannot be split) is a
`cerewrite.ir.Rejection` inside a result; a wrong input or an impossible request is one of
the errors below; a broken invariant of our own is an `AssertionError`.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import ClassVar

_OURS = Path(__file__).resolve().parent

UNSEEN = (
    r"\u0000-\u001f\u007f-\u009f"  # control characters: ESC, and the C1 sequences
    r"\u200e\u200f\u2028-\u202e\u2066-\u2069"  # what turns or breaks a line
    r"\ud800-\udfff"  # halves of characters
)
"""Characters that no text may bring to a terminal, as a class of a regular expression."""

_HIDDEN = re.compile(f"[{UNSEEN}]")


def printable(text: str, keep: str = "") -> str:
    r"""Text without characters that steer a terminal or turn a line; they are written out.

    Args:
        text: any text.
        keep: such characters that may stay (a line break, in messages).

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """

    def written(match: re.Match[str]) -> str:
        found = match.group()
        return found if found in keep else ascii(found)[1:-1]

    return _HIDDEN.sub(written, text)


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
        self.message = printable(message, keep="\t\n")
        self.advice = printable(advice, keep="\t\n")
        super().__init__(self.message)

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


class EndedError(TraceError):
    """The model's own code ends the program, by ``sys.exit`` or ``quit``."""


class AnalysisError(CerewriteError):
    """An estimator cannot make its estimate."""

    exit_code = 5


class NoClosedFormError(AnalysisError):
    """The closed form has no rule for an operator; estimators that measure need none."""

    ADVICE = "measure with --estimator jackknife, or register a rule for the operator"


class ZeroKernelError(AnalysisError):
    """The tangent kernel is zero: a read-out or a branch of zeros lets no gradient through."""

    ADVICE = "weights and scales of zeros are taken as drawn by --gain nonzero"


class NotFiniteError(AnalysisError):
    """A draw's output or tangent kernel is not finite; no other estimator can mend that."""


class PlanError(CerewriteError):
    """A plan cannot be made, read or applied."""

    exit_code = 6


class InfeasibleBudgetError(PlanError):
    """The budget lies outside what any plan can reach; the message gives the range."""


class UncorrectedError(PlanError):
    """The estimate gives a width no correction, as behind a branch that starts at zero."""


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


class TargetTakenError(OutputError):
    """Another run holds the target, or something appeared there while this one worked."""

    exit_code = 12


class ShortOfMemoryError(CerewriteError):
    """The machine has not the memory that the model needs."""

    exit_code = 13


class TrainingError(CerewriteError):
    """A training run cannot begin, go on or be resumed."""

    exit_code = 11


def first_line(error: BaseException, most: int = 240) -> str:
    r"""An exception in one line: its type, and the first line of what it says.

    Example:
        >>> first_line(ValueError("no such thing\nat all")), first_line(MemoryError())
        ('ValueError: no such thing', 'MemoryError: no message')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:most]


def own_line(error: BaseException) -> str:
    """Where a user's code raised: file, line and function, in brackets; "" if it is not known.

    That is the innermost frame that lies neither in torch nor here.

    Example:
        >>> own_line(ValueError("never raised"))
        ''
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not _foreign(Path(frame.filename))
    ]
    if not frames:
        return ""
    frame = frames[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})"


def _foreign(file: Path) -> bool:
    """Whether a file is torch's, Python's own machinery, or this package's."""
    if str(file).startswith("<frozen") or {"torch", "site-packages"} <= set(file.parts):
        return True
    return file.is_relative_to(_OURS) or file.is_relative_to(_OURS.parent / "passes")
