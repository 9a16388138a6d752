"""Width classes under construction: a union-find whose sets may be set side by side.

Numbers stand for a class taken some times: the axis of a number has ``scale`` elements where its
class has one channel, and a member's slice of it is as much longer. So the query heads that share
a key head have its class, as many times as there are of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import gcd, lcm

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
        step: the width of a member must be a multiple of it (channels of a head).
    """

    size: int
    parts: tuple[int, ...] = ()
    writers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    couplings: set[str] = field(default_factory=set)
    modules: list[tuple[PerChannel, tuple[int, ...]]] = field(default_factory=list)
    pins: list[Rejection] = field(default_factory=list)
    step: int = 1


class Classes:
    """Numbers stand for classes, taken once or several times, or for concatenations of them."""

    def __init__(self) -> None:
        self.drafts: list[WidthClassBuilder] = []
        self._parents: list[int] = []
        self._scales: list[int] = []

    def add(self, size: int, writer: str) -> int:
        """A new class that ``writer`` writes."""
        return self._append(WidthClassBuilder(size, writers=[writer]))

    def concatenate(self, parts: Sequence[int]) -> int:
        """Several numbers side by side, in order; the same one may come twice."""
        found = tuple(leaf for part in parts for leaf in self.parts(part))
        return self._append(WidthClassBuilder(sum(map(self.size, found)), found))

    def _append(self, draft: WidthClassBuilder) -> int:
        self.drafts.append(draft)
        self._parents.append(len(self._parents))
        self._scales.append(1)
        return len(self._parents) - 1

    def find(self, width: int) -> int:
        """The class that a number stands for, or its concatenation."""
        while self._parents[width] != width:
            width = self._parents[width]
        return width

    def scale(self, width: int) -> int:
        """How many elements a number has where its class has one channel."""
        found = self._scales[width]
        while self._parents[width] != width:
            width = self._parents[width]
            found *= self._scales[width]
        return found

    def parts(self, width: int) -> tuple[int, ...]:
        """The numbers side by side behind a number: itself, or those of a concatenation."""
        return self.drafts[self.find(width)].parts or (width,)

    def resolve(self, width: int) -> tuple[int, ...]:
        """The classes behind a number: one, or those of a concatenation, in order."""
        return tuple(self.find(part) for part in self.parts(width))

    def scales(self, width: int) -> tuple[int, ...]:
        """How many times every class behind a number is taken."""
        return tuple(self.scale(part) for part in self.parts(width))

    def roots(self) -> list[int]:
        """Every class."""
        return [i for i, draft in enumerate(self.drafts) if self.find(i) == i and not draft.parts]

    def size(self, width: int) -> int:
        """Elements of a number's axis: channels of its classes, as often as they are taken."""
        root = self.find(width)
        draft = self.drafts[root]
        return draft.size if draft.parts else draft.size * self.scale(width)

    def pin(self, width: int, rejection: Rejection) -> None:
        """Refuse to split every class behind a number."""
        for root in self.resolve(width):
            self.drafts[root].pins.append(rejection)

    def step(self, width: int, elements: int) -> None:
        """Let a member's slice of a number be a multiple of so many elements."""
        for part in self.parts(width):
            draft = self.drafts[self.find(part)]
            draft.step = lcm(draft.step, elements // gcd(elements, self.scale(part)))

    def divide(self, width: int, sizes: Sequence[int]) -> tuple[int, ...] | None:
        """Make a class several side by side, each a multiple of one; None where it cannot be.

        It cannot be where something has read or normed the class as a whole.

        Args:
            width: what one layer writes.
            sizes: elements of the parts, in order.
        """
        root = self.find(width)
        draft = self.drafts[root]
        if draft.parts:
            same = [self.size(part) for part in draft.parts] == list(sizes)
            return draft.parts if same else None
        whole = draft.readers or draft.modules or draft.step > 1 or len(draft.writers) != 1
        alone = self._parents.count(root) == 1 and not any(root in d.parts for d in self.drafts)
        if whole or not alone or sum(sizes) != draft.size or min(sizes) < 1:
            return None
        unit = gcd(*sizes)
        new = self._append(WidthClassBuilder(unit, writers=draft.writers, pins=draft.pins))
        self.drafts[new].couplings = draft.couplings
        parts = []
        for size in sizes:
            parts.append(self._append(WidthClassBuilder(unit)))
            self._parents[-1], self._scales[-1] = new, size // unit
        draft.parts, draft.writers, draft.pins = tuple(parts), [], []
        return draft.parts

    def fraction(self, width: int, parts: int) -> int:
        """A number for one of ``parts`` equal parts of every channel of a number."""
        if len(self.parts(width)) > 1:
            return self.concatenate([self.fraction(part, parts) for part in self.parts(width)])
        root, scale = self.find(width), self.scale(width)
        if scale % parts:
            root = self._shrink(root, self.drafts[root].size // (parts // gcd(scale, parts)))
            scale = self.scale(width)
        new = self._append(WidthClassBuilder(self.size(width) // parts))
        self._parents[new], self._scales[new] = root, scale // parts
        return new

    def tie(self, first: int, second: int, coupling: str, where: str) -> int:
        """Make two numbers share their classes; concatenations part by part, or not at all.

        Numbers of different sizes share a class that each takes some times: a member has the
        same share of both.
        """
        ours, theirs = self.parts(first), self.parts(second)
        sizes = [[self.size(part) for part in side] for side in (ours, theirs)]
        if len(ours) != len(theirs) or (len(ours) > 1 and sizes[0] != sizes[1]):
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
        """Make two classes one; the earlier one lives on, at the size that both are made of."""
        keep, drop = sorted((self.find(first), self.find(second)))
        kept = self.drafts[keep]
        kept.couplings.add(coupling)
        if keep == drop:
            return
        gone = self.drafts[drop]
        unit = gcd(kept.size, gone.size)
        if kept.size != unit:  # numbers that stand for the earlier one stand for more of the new
            keep = self._shrink(keep, unit)
        times = gone.size // unit
        self._parents[drop], self._scales[drop] = keep, times
        kept.step = lcm(kept.step, gone.step // gcd(gone.step, times))
        kept.writers += gone.writers
        kept.readers += gone.readers
        kept.couplings |= gone.couplings
        kept.modules += gone.modules
        kept.pins += gone.pins

    def _shrink(self, root: int, unit: int) -> int:
        """A new number for a class at another size, which its old one takes several times."""
        draft = self.drafts[root]
        new = self._append(draft)
        self.drafts[root] = WidthClassBuilder(draft.size)
        self._parents[root], self._scales[root] = new, draft.size // unit
        draft.step //= gcd(draft.step, draft.size // unit)
        draft.size = unit
        return new


def _sum(sizes: Sequence[int]) -> str:
    return " + ".join(map(str, sizes))
