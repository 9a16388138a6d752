"""Registries: one file, one registration; listing the folder discovers them all."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import ClassVar, Generic, Protocol, TypeVar, cast

from cerewrite.errors import UsageError

T = TypeVar("T")


class Named(Protocol):
    """A class that says under which name it is registered."""

    name: ClassVar[str]


K = TypeVar("K", bound=Named)


class Registry(Mapping[str, T], Generic[T]):
    """Named things of one kind, discovered by importing every module of a package.

    Args:
        kind: what is registered, in the singular, for messages ("estimator").
        package: dotted name of the package whose modules register themselves.
        entry_point_group: optional group through which installed packages add theirs.

    Example:
        >>> colours: Registry[int] = Registry("colour")
        >>> _ = colours.register("red", 1)
        >>> colours["red"]
        1
    """

    def __init__(
        self, kind: str, package: str | None = None, entry_point_group: str | None = None
    ) -> None:
        self.kind = kind
        self._package = package
        self._group = entry_point_group
        self._items: dict[str, T] = {}
        self._discovered = package is None

    def register(self, name: str, item: T) -> T:
        """Add ``item`` under ``name`` and return it; a second one of that name is refused."""
        if name in self._items:
            raise UsageError(
                f"{self.kind} '{name}' is registered twice",
                advice="give one of the two another name",
            )
        self._items[name] = item
        return item

    def known(self, name: str) -> T | None:
        """What is registered under ``name`` so far, without looking for more."""
        return self._items.get(name)

    def replace(self, name: str, item: T) -> T:
        """Put ``item`` in the place of what is registered under ``name``; returns it."""
        assert name in self._items, name
        self._items[name] = item
        return item

    def instance(self, kind: type[K]) -> type[K]:
        """Class decorator: register one instance of a class under the class's name."""
        self.register(kind.name, cast(T, kind()))
        return kind

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        assert self._package is not None
        package = importlib.import_module(self._package)
        for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
            importlib.import_module(f"{self._package}.{module}")
        if self._group is not None:
            for entry in sorted(entry_points(group=self._group), key=lambda e: e.name):
                entry.load()

    def __getitem__(self, name: str) -> T:
        self._discover()
        if name not in self._items:
            raise UsageError(f"unknown {self.kind} '{name}'", advice=suggest(name, self._items))
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._items))

    def __len__(self) -> int:
        self._discover()
        return len(self._items)


def suggest(name: str, choices: Mapping[str, object]) -> str:
    """The near-miss hint for a name that is not among ``choices``."""
    near = difflib.get_close_matches(name, choices, n=1)
    listed = ", ".join(sorted(choices)) or "none"
    return f"did you mean '{near[0]}'? (choices: {listed})" if near else f"choose from: {listed}"


def require_whole(name: str, value: object, least: int, most: int) -> None:
    """Check a whole number that the user gave.

    Raises:
        UsageError: if it is no whole number from ``least`` to ``most``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        large = isinstance(value, int) and value.bit_length() > 128
        shown = "a number of more than 128 bits" if large else repr(value)[:40]
        raise UsageError(
            f"{name} is {shown}",
            advice=f"give a whole number that is at least {least} and at most {most}",
        )
