"""Numbers that a forward read off a tensor's shape, and what it computed from them."""

from __future__ import annotations

from collections.abc import Iterable

Axis = tuple[str, int]
"""An operator's name and an axis of its output, counted from 0."""


class Length(int):
    """An integer that remembers which axes of which values it comes from.

    Sums, products and quotients remember too, but are no longer the length of an axis itself.

    Attributes:
        axes: the axes.
        exact: whether it is the length of its one axis.

    Example:
        >>> width = Length(12, [("linear", 1)])
        >>> heads = width // 4
        >>> int(heads), heads.axes, width.exact, heads.exact
        (3, (('linear', 1),), True, False)
    """

    axes: tuple[Axis, ...]
    exact: bool

    def __new__(cls, value: int, axes: Iterable[Axis], *, exact: bool = True) -> Length:
        """A length of so many elements."""
        made = super().__new__(cls, value)
        made.axes = tuple(dict.fromkeys(axes))
        made.exact = exact
        return made

    def _with(self, other: object, value: object) -> int:
        if not isinstance(value, int):
            return value  # type: ignore[return-value]
        axes = (*self.axes, *(other.axes if isinstance(other, Length) else ()))
        return Length(value, axes, exact=False)

    def __add__(self, other: int) -> int:
        return self._with(other, int.__add__(self, other))

    def __sub__(self, other: int) -> int:
        return self._with(other, int.__sub__(self, other))

    def __mul__(self, other: int) -> int:
        return self._with(other, int.__mul__(self, other))

    def __floordiv__(self, other: int) -> int:
        return self._with(other, int.__floordiv__(self, other))

    def __radd__(self, other: int) -> int:
        return self._with(other, int.__radd__(self, other))

    def __rsub__(self, other: int) -> int:
        return self._with(other, int.__rsub__(self, other))

    def __rmul__(self, other: int) -> int:
        return self._with(other, int.__rmul__(self, other))

    def __rfloordiv__(self, other: int) -> int:
        return self._with(other, int.__rfloordiv__(self, other))
