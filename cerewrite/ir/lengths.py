"""Numbers that a forward read off a tensor's shape or a module, and what it computed from them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Axis = tuple[str, int]
"""An operator's name and an axis of its output, counted from 0; or an attribute's qualified name
and `HELD`."""

HELD = -1
"""Stands in the place of an axis where a number was read off an attribute of a module."""

_Formula = tuple[Callable[[int, int], int], int, int]


class Length(int):
    """An integer that remembers which axes of which values, or which attributes, it comes from.

    Sums, products and quotients remember too, but are no longer the length of an axis itself.

    Attributes:
        axes: the axes and attributes.
        exact: whether it is the length of its one axis.
        used: where names of attributes are noted that became other numbers (roots, quotients);
            None for nowhere.
        met: where an attribute and the axis whose length it was found to equal are noted.

    Example:
        >>> width = Length(12, [("linear", 1)])
        >>> heads = width // 4
        >>> int(heads), heads.axes, width.exact, heads.exact
        (3, (('linear', 1),), True, False)
        >>> heads.at({("linear", 1): 24})
        6
    """

    axes: tuple[Axis, ...]
    exact: bool
    used: set[str] | None
    met: set[tuple[str, Axis]] | None
    _formula: _Formula | None

    def __new__(cls, value: int, axes: Iterable[Axis], *, exact: bool = True) -> Length:
        """A length of so many elements."""
        made = super().__new__(cls, value)
        made.axes = tuple(dict.fromkeys(axes))
        made.exact = exact
        made.used = made.met = None
        made._formula = None
        return made

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """Copies are plain numbers: what was read once is not read again by copying."""
        return int, (int(self),)

    def at(self, values: Mapping[Axis, int]) -> int:
        """The number for other lengths of its axes; those that are not named stay."""
        if self._formula is None:
            return values.get(self.axes[0], int(self)) if self.exact else int(self)
        function, *operands = self._formula
        return function(*(x.at(values) if isinstance(x, Length) else x for x in operands))

    def value_of(self, axis: Axis) -> int | None:
        """The length of one of its axes; None if it is none of them."""
        if self._formula is None:
            return int(self) if self.exact and self.axes[0] == axis else None
        found = (x.value_of(axis) for x in self._formula[1:] if isinstance(x, Length))
        return next((value for value in found if value is not None), None)

    def divisors(self, values: Mapping[Axis, int]) -> list[int]:
        """The fixed numbers by which what depends on the named axes is divided, rounding down."""
        if self._formula is None:
            return []
        function, *operands = self._formula
        lengths = [x for x in operands if isinstance(x, Length)]
        found = [divisor for x in lengths for divisor in x.divisors(values)]
        over, by = (x.at(values) if isinstance(x, Length) else x for x in operands)
        if function is operator.floordiv and over != operands[0] and by == operands[1]:
            found.append(int(operands[1]))
        return found

    def _with(self, function: Callable[[int, int], int], left: object, right: object) -> Any:
        both = [x for x in (left, right) if isinstance(x, Length)]
        if not isinstance(left, int) or not isinstance(right, int):
            self._lost()
            return NotImplemented
        value = function(int(left), int(right))
        made = Length(value, [axis for x in both for axis in x.axes], exact=False)
        made._formula = (function, left, right)
        made.used = next((x.used for x in both if x.used is not None), None)
        return made

    def _lost(self) -> int:
        """The bare number, for what is no formula of lengths; noted."""
        if self.used is not None:
            self.used.update(name for name, axis in self.axes if axis == HELD)
        return int(self)

    def __eq__(self, other: object) -> bool:
        """Equality as of integers; an attribute that equals the length of an axis is noted."""
        same = int(self) == other
        if same and isinstance(other, Length) and self.exact and other.exact:
            for held, met in ((self, other), (other, self)):
                (name, at), axis = held.axes[0], met.axes[0]
                if at == HELD != axis[1] and held.met is not None:
                    held.met.add((name, axis))
        return same

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __truediv__(self, other: float) -> float:
        return self._lost() / other

    def __rtruediv__(self, other: float) -> float:
        return other / self._lost()

    def __pow__(self, other: Any, modulo: int | None = None) -> Any:
        return pow(self._lost(), other, modulo)

    def __float__(self) -> float:
        return float(self._lost())

    def __add__(self, other: int) -> Any:
        return self._with(operator.add, self, other)

    def __sub__(self, other: int) -> Any:
        return self._with(operator.sub, self, other)

    def __mul__(self, other: int) -> Any:
        return self._with(operator.mul, self, other)

    def __floordiv__(self, other: int) -> Any:
        return self._with(operator.floordiv, self, other)

    def __radd__(self, other: int) -> Any:
        return self._with(operator.add, other, self)

    def __rsub__(self, other: int) -> Any:
        return self._with(operator.sub, other, self)

    def __rmul__(self, other: int) -> Any:
        return self._with(operator.mul, other, self)

    def __rfloordiv__(self, other: int) -> Any:
        return self._with(operator.floordiv, other, self)
