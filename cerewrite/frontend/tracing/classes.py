"""Width classes under construction: a union-find whose sets may be set side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cerewrite.ir import PerChannel, Rejection


@dataclass(slots=True)
class WidthClassBuilder:
    """A width class under construction.

    Attributes:
        size: channels.
        parts: for a concatenation, the classes side by side; it is no class of its own.
        writers, readers: layers, in execution order.
        couplings: operators that tie several writers together.
        modules: the per-channel modules whose first class it is.
        pins: why it cannot be split.
    """

    size: int
    parts: tuple[int, ...] = ()
    writers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    couplings: set[str] = field(default_factory=set)
    modules: list[tuple[PerChannel, tuple[int, ...]]] = field(default_factory=list)
    pins: list[Rejection] = field(default_factory=list)


class Classes:
    """Numbers stand for classes or for concatenations of classes."""

    def __init__(self) -> None:
        self.drafts: list[WidthClassBuilder] = []
        self._parents: list[int] = []

    def add(self, size: int, writer: str) -> int:
        """A new class that ``writer`` writes."""
        return self._append(WidthClassBuilder(size, writers=[writer]))

    def concatenate(self, parts: Sequence[int]) -> int:
        """Several classes side by side, in order; the same one may come twice."""
        found = tuple(root for part in parts for root in self.resolve(part))
        return self._append(WidthClassBuilder(sum(self.drafts[i].size for i in found), found))

    def _append(self, draft: WidthClassBuilder) -> int:
        self.drafts.append(draft)
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def find(self, width: int) -> int:
        """The representative of a number."""
        while self._parents[width] != width:
            self._parents[width] = self._parents[self._parents[width]]
            width = self._parents[width]
        return width

    def resolve(self, width: int) -> tuple[int, ...]:
        """The classes behind a number: one, or those of a concatenation, in order."""
        root = self.find(width)
        parts = self.drafts[root].parts
        return tuple(self.find(part) for part in parts) if parts else (root,)

    def roots(self) -> list[int]:
        """Every class, in execution order."""
        return [i for i, draft in enumerate(self.drafts) if self.find(i) == i and not draft.parts]

    def size(self, width: int) -> int:
        """Channels of a class or a concatenation."""
        return self.drafts[self.find(width)].size

    def pin(self, width: int, rejection: Rejection) -> None:
        """Refuse to split every class behind a number."""
        for root in self.resolve(width):
            self.drafts[root].pins.append(rejection)

    def tie(self, first: int, second: int, coupling: str, where: str) -> int:
        """Make two numbers one; concatenations part by part, or not at all."""
        ours, theirs = self.resolve(first), self.resolve(second)
        sizes = [[self.drafts[i].size for i in side] for side in (ours, theirs)]
        if sizes[0] != sizes[1]:
            reason = (
                f"'{coupling}' joins concatenations of {_sum(sizes[0])} and {_sum(sizes[1])} "
                "channels, whose members lie apart"
            )
            refusal = Rejection(
                where, "concatenation-mismatch", reason, "join the parts before concatenating them"
            )
            self.pin(first, refusal)
            self.pin(second, refusal)
            return first
        for one, other in zip(ours, theirs, strict=True):
            self._merge(one, other, coupling)
        return first

    def _merge(self, first: int, second: int, coupling: str) -> None:
        """Make two classes one; the earlier one lives on."""
        keep, drop = sorted((self.find(first), self.find(second)))
        kept = self.drafts[keep]
        kept.couplings.add(coupling)
        if keep != drop:
            gone = self.drafts[drop]
            self._parents[drop] = keep
            kept.writers += gone.writers
            kept.readers += gone.readers
            kept.couplings |= gone.couplings
            kept.modules += gone.modules
            kept.pins += gone.pins


def _sum(sizes: Sequence[int]) -> str:
    return " + ".join(map(str, sizes))
