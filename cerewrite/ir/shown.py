"""Records that notebooks show: a record knows that it can be shown, a registered view knows how."""

from __future__ import annotations

from typing import Any, Protocol

from cerewrite.registry import Registry


class View(Protocol):
    """How records of one class are shown; registered under the class's name."""

    def html(self, record: Any) -> str:
        """A part of an HTML page."""

    def frame(self, record: Any) -> Any:
        """A table of pandas."""

    def plot(self, record: Any, axes: Any) -> Any:
        """The axes of matplotlib that it was drawn on."""


VIEWS: Registry[View] = Registry("view of", "cerewrite.reporter.views")
"""Views by the name of the class; the reporter's package registers them when one is looked for."""


class Shown:
    """A record with a view: what notebooks call, and tables and pictures on request."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return VIEWS[type(self).__name__].html(self)

    def to_frame(self) -> Any:
        """Its figures as a ``pandas.DataFrame``, numbers as the record holds them.

        Raises:
            UsageError: if pandas is not installed.
        """
        return VIEWS[type(self).__name__].frame(self)

    def plot(self, axes: Any = None) -> Any:
        """Draw it with matplotlib.

        Args:
            axes: where to; a figure of its own without any.

        Returns:
            The axes.

        Raises:
            UsageError: if matplotlib is not installed, or there is nothing to draw.
        """
        return VIEWS[type(self).__name__].plot(self, axes)
