"""What every view does alike: sections as HTML, columns as a frame, axes to draw on."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from cerewrite.errors import UsageError, printable
from cerewrite.ir.shown import VIEWS
from cerewrite.reporter.elements import section_html
from cerewrite.reporter.section import Section

R = TypeVar("R")

STYLE = (
    ".cerewrite table{border-collapse:collapse}.cerewrite h2{font-size:1.1em}"
    ".cerewrite dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1em}"
    ".cerewrite dd{margin:0}.cerewrite .right{text-align:right}"
    ".cerewrite th{white-space:pre-line}.cerewrite .fail{color:#b3261e;font-weight:700}"
    ".cerewrite .share{display:inline-block;height:.7em;background:#2f6fb0;margin-left:.5em}"
)
BEFORE, AFTER = "#7f8790", "#c46a1b"
"""Colours of what was and of what is to be."""

register = VIEWS.instance


class RecordView(ABC, Generic[R]):
    """A view; see `cerewrite.ir.shown.View`.

    Attributes:
        name: of the record's class.
    """

    name: ClassVar[str]

    @abstractmethod
    def sections(self, record: R) -> Sequence[Section]:
        """What a notebook shows."""

    @abstractmethod
    def columns(self, record: R) -> Mapping[str, Sequence[object]]:
        """Its figures, one column a name."""

    @abstractmethod
    def draw(self, record: R, axes: Any) -> None:
        """Draw it on axes of matplotlib."""

    def html(self, record: R) -> str:
        """See `cerewrite.ir.shown.View.html`."""
        parts = "\n".join(section_html(section) for section in self.sections(record))
        return printable(f'<div class="cerewrite"><style>{STYLE}</style>{parts}</div>', keep="\n")

    def frame(self, record: R) -> Any:
        """See `cerewrite.ir.shown.View.frame`."""
        return needed("pandas", "to_frame").DataFrame(dict(self.columns(record)))

    def plot(self, record: R, axes: Any = None) -> Any:
        """See `cerewrite.ir.shown.View.plot`."""
        if axes is None:
            _, axes = needed("matplotlib.pyplot", "plot").subplots()
        self.draw(record, axes)
        return axes


def needed(library: str, what: str) -> Any:
    """A library that is not among what the package requires.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        package = library.partition(".")[0]
        raise UsageError(
            f"{what} needs {package}: {error}", advice=f"pip install {package}"
        ) from None


def draw_bars(axes: Any, names: Sequence[str], values: Sequence[float]) -> None:
    """Horizontal bars with their names, the first on top; names may be equal."""
    places = range(len(names))
    axes.barh(places, values, color=AFTER)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
