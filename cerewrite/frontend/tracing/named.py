"""Which numbers that a forward names grow with a width class, and which stay.

A number is known by its formula over the axes and attributes that it was read off
(`cerewrite.ir.lengths`): every axis that carries a class, and every attribute that stands for
one, is doubled, and the number doubles or it stays. An attribute comes to stand for a class where
doubling it, and no other, is what a view needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import gcd

from cerewrite.frontend.tracing.classes import Classes
from cerewrite.ir import Length, PerChannel
from cerewrite.ir.lengths import HELD, Axis
from cerewrite.ops.base import Channels, Value


class NamedSizes:
    """The attributes that stand for width classes, as far as the walk has seen.

    Args:
        classes: the classes.
        values: the values so far, by name.
        used: attributes that the forward computes with: they stay.
    """

    def __init__(
        self, classes: Classes, values: Mapping[str, Value], used: Iterable[str] = ()
    ) -> None:
        self._classes = classes
        self._values = values
        self._standing: dict[str, tuple[int, int, int]] = {}
        self._kept = set(used)

    def carriers(self, size: object) -> list[Channels]:
        """The channel axes whose lengths a number is made of."""
        axes = size.axes if isinstance(size, Length) else ()
        found = ((self._values[n].channels, axis) for n, axis in axes if n in self._values)
        return [channels for channels, axis in found if channels and channels.axis == axis]

    def widths(self, size: object) -> list[int]:
        """The classes that a number is made of, by axes and by attributes."""
        axes = size.axes if isinstance(size, Length) else ()
        held = [self._standing[name][0] for name, axis in axes if self._stands((name, axis))]
        return [channels.width for channels in self.carriers(size)] + held

    def stays(self, size: object) -> bool:
        """Whether a number is the same for members of any width; its classes grow alike then."""
        if not isinstance(size, Length):
            return True
        doubled = self._doubled(size)
        if size.at(doubled) != size:
            return False
        widths = self.widths(size)
        for other in widths[1:]:
            self._classes.tie(widths[0], other, "view", "")
        undecided = {axis: 2 * value for axis, value in self._open(size)}
        if size.at({**doubled, **undecided}) != size:
            self._kept |= {name for name, _ in undecided}
        return True

    def grows(self, size: object, width: int, where: str) -> bool:
        """Whether a number grows as a class does; an attribute may come to stand for it."""
        if not isinstance(size, Length):
            return False
        doubled = self._doubled(size)
        if size.at(doubled) != 2 * size:
            found = [
                (axis, value)
                for axis, value in self._open(size)
                if size.at({**doubled, axis: 2 * value}) == 2 * size
            ]
            if len(found) != 1:
                return False
            ((name, _), value), total = found[0], self._classes.size(width)
            shared = gcd(value, total)
            self._standing[name] = (width, value // shared, total // shared)
        alone = len(self._classes.parts(width)) == 1
        for other in self.widths(size):
            # a class that is a share of a concatenation's length grows as each of its parts
            for part in self._classes.parts(other) if alone else (other,):
                if part != width:
                    self._classes.tie(width, part, "view", where)
        for divisor in size.divisors(self._doubled(size)):
            for other in self.widths(size):
                self._classes.step(other, divisor)
        return True

    def modules(self) -> Iterator[tuple[PerChannel, int]]:
        """The attributes as modules that are resized with their classes."""
        for name, (width, times, per) in self._standing.items():
            yield PerChannel(name, "number", (), 0, times=times, per=per), width

    def _stands(self, axis: Axis) -> bool:
        return axis[1] == HELD and axis[0] in self._standing

    def _doubled(self, size: Length) -> dict[Axis, int]:
        """Twice the lengths that grow: of axes with channels, and of attributes that stand."""
        carried = {
            (name, axis): self._values[name].op.shape[axis]
            for name, axis in size.axes
            if name in self._values and axis >= 0
        }
        grown = {
            key: 2 * length
            for key, length in carried.items()
            if (at := self._values[key[0]].channels) is not None and at.axis == key[1]
        }
        held = {axis: 2 * self._value(size, axis) for axis in size.axes if self._stands(axis)}
        return {**grown, **held}

    def _open(self, size: Length) -> list[tuple[Axis, int]]:
        """The attributes, with their values, of which it is not known if they stand for a class."""
        return [
            (axis, self._value(size, axis))
            for axis in size.axes
            if axis[1] == HELD and axis[0] not in self._standing and axis[0] not in self._kept
        ]

    def _value(self, size: Length, axis: Axis) -> int:
        found = size.value_of(axis)
        assert found is not None, (size, axis)
        return found
