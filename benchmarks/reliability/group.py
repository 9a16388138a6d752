"""A group of cases: what was tried, what came of it, what is promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cerewrite.registry import Registry


@dataclass(frozen=True, slots=True)
class Counts:
    """What came of a group's cases.

    Attributes:
        cases: cases tried.
        accepted: cases that were carried out.
        refused: cases that ended in a typed error.
        untyped: errors that are none of ours, one text per kind.
        hangs: cases that ran out of time.
        writes: files written, removed or renamed, processes and connections started by a case
            that should start none.
        seconds: time on a processor of the slowest case.
    """

    cases: int
    accepted: int
    refused: int
    untyped: tuple[str, ...] = ()
    hangs: int = 0
    writes: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether the promise held."""
        return not (self.untyped or self.hangs or self.writes)


@dataclass(frozen=True, slots=True)
class Group:
    """Cases of one kind.

    Attributes:
        name: a short name.
        tries: what is tried, in a sentence.
        promise: what is promised, in a sentence.
        limit: what is not promised, in a sentence.
        run: tries so many cases.
    """

    name: str
    tries: str
    promise: str
    limit: str
    run: Callable[[int], Counts]


GROUPS: Registry[Group] = Registry("group", "benchmarks.reliability")


def register(
    name: str, *, tries: str, promise: str, limit: str
) -> Callable[[Callable[[int], Counts]], Callable[[int], Counts]]:
    """Decorator: make a function that tries so many cases known as a group."""

    def decorate(run: Callable[[int], Counts]) -> Callable[[int], Counts]:
        GROUPS.register(name, Group(name, tries, promise, limit, run))
        return run

    return decorate
