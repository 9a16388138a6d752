"""A design: how many members a region has, and how wide each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cerewrite.ir.ranges import Members, Size


@dataclass(frozen=True, slots=True)
class Design:
    """What a region is, or is to become.

    Attributes:
        multiplicity: members, 1 to 65,536.
        widths: width of one member per class of the region, in its order.
    """

    FLAT: ClassVar[bool] = True
    multiplicity: Members
    widths: tuple[Size, ...]


class Designed:
    """A record that carries a design; its two parts can be read off the record itself."""

    __slots__ = ()
    design: Design

    @property
    def multiplicity(self) -> int:
        """Members."""
        return self.design.multiplicity

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of one member per class."""
        return self.design.widths
