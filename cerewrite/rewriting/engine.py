"""The pass protocol, the registry of passes, and the engine that orders and runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from cerewrite.errors import CerewriteError, RewriteError
from cerewrite.registry import Registry
from cerewrite.rewriting.session import Session


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass did.

    Attributes:
        name: the pass.
        details: one sentence with figures.
    """

    name: str
    details: str


class Phase(IntEnum):
    """When a pass runs: phase by phase, and by name within one.

    Attributes:
        RESIZE: per-channel modules get the members' channels.
        SPLIT: sampled layers get one block per member.
        REORDER: layers put the channels that they read in order.
        SCALE: layers get multipliers.
        DRAW: weights get fresh values.
        TRANSFER: weights get values made of the original's.
    """

    RESIZE = 1
    SPLIT = 2
    REORDER = 3
    SCALE = 4
    DRAW = 5
    TRANSFER = 6


class Pass(ABC):
    """One rewrite: a frozen dataclass whose fields are its options.

    Attributes:
        name: registered name.
        phase: when it runs.
        default: whether it runs when no passes are named.
    """

    name: ClassVar[str]
    phase: ClassVar[Phase]
    default: ClassVar[bool] = True

    def requires(self, session: Session) -> None:  # noqa: B027  # an empty default is meant
        """Raise `RewriteError` if the pass cannot run on this model; change nothing."""

    @abstractmethod
    def apply(self, session: Session) -> PassResult:
        """Do the work."""

    def ensures(self, session: Session) -> None:  # noqa: B027
        """Raise `RewriteError` if the pass has not done what it promises."""


PASSES: Registry[type[Pass]] = Registry("pass", "passes", "cerewrite.passes")


def register(kind: type[Pass]) -> type[Pass]:
    """Class decorator: make a pass known under its name."""
    return PASSES.register(kind.name, kind)


def default_passes() -> tuple[Pass, ...]:
    """Every registered pass that runs by default, with its default options."""
    return tuple(kind() for kind in PASSES.values() if kind.default)


def default_passes_with(*others: Pass) -> tuple[Pass, ...]:
    """The default passes, those of the same names as ``others`` replaced by them."""
    by_name = {item.name: item for item in (*default_passes(), *others)}
    return tuple(by_name.values())


def order(passes: Sequence[Pass]) -> tuple[Pass, ...]:
    """Sort passes by phase; ties by name.

    Raises:
        RewriteError: if a pass is given twice, or says no phase.
    """
    if len({item.name for item in passes}) < len(passes):
        raise RewriteError("a pass is given twice", advice="give every pass once")
    for item in passes:
        if not isinstance(getattr(item, "phase", None), Phase):
            raise RewriteError(
                f"pass '{item.name}' does not say when it runs",
                advice=f"give its class a phase: {', '.join(phase.name for phase in Phase)}",
            )
    return tuple(sorted(passes, key=lambda item: (item.phase, item.name)))


def run(passes: Sequence[Pass], session: Session) -> tuple[PassResult, ...]:
    """Run passes in order; each is checked before and after.

    Raises:
        RewriteError: if one fails; the message names it and the passes that had run. What was
            swapped so far stays swapped: call `Session.undo`.
    """
    results: list[PassResult] = []
    for item in order(passes):
        try:
            item.requires(session)
            results.append(item.apply(session))
            item.ensures(session)
        except Exception as error:
            done = [result.name for result in results if result.name != item.name]
            raise _failure(item, done, error) from error
    _complete(session)
    return tuple(results)


def _failure(item: Pass, done: Sequence[str], error: Exception) -> RewriteError:
    if isinstance(error, CerewriteError):
        reason, advice = error.message, error.advice
    else:
        reason = f"{type(error).__name__}: {error}"
        advice = "exclude the layer (--exclude), or leave the pass out"
    before = ", ".join(done) or "none"
    return RewriteError(
        f"pass '{item.name}' failed (passes run before: {before}): {reason}", advice=advice
    )


def _complete(session: Session) -> None:
    """Refuse a half-done region: every layer and module of it must have been swapped."""
    for change in session.changes:
        layers = [(layer.name, layer.op) for layer in change.region.layers]
        for name, op in layers + [(module.name, module.op) for module in change.region.modules]:
            if name not in session.originals:
                raise RewriteError(
                    f"no pass rewrote '{name}' ({op}) of the region '{change.region.name}'",
                    advice="run the pass that knows this operator, or exclude the layer",
                )
