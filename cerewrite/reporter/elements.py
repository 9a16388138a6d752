"""Sections as HTML; whatever came from the user is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from cerewrite.reporter.figures import percent
from cerewrite.reporter.section import Cell, Section, Share, Verdict

LONG = 40
"""Rows above which a table is folded away."""


def sections_html(sections: Sequence[Section], charts: Mapping[str, str] | None = None) -> str:
    """Sections one after the other.

    Args:
        sections: what to show.
        charts: HTML that stands between a section's heading and its table, by its title.
    """
    names = anchors([section.title for section in sections])
    return "\n".join(
        section_html(section, name, (charts or {}).get(section.title, ""))
        for section, name in zip(sections, names, strict=True)
    )


def section_html(section: Section, own: str = "", chart: str = "") -> str:
    """A section with its heading, whose identifier is ``own``; "" for none."""
    mark = ' class="fail"' if section.failed else ""
    name, label = (f' id="{own}"', f' aria-labelledby="{own}"') if own else ("", "")
    parts = [f"<h2{name}{mark}>{escape(section.title)}</h2>{chart}"]
    if section.facts:
        parts.append(pairs_html(section.facts))
    if section.columns and section.rows:
        table = table_html(section)
        if len(section.rows) > LONG:
            table = f"<details><summary>{len(section.rows)} rows</summary>{table}</details>"
        parts.append(table)
    groups = "".join(
        f"<h3>{escape(title)}</h3>{pairs_html(text)}" for title, text in section.groups
    )
    if len(section.groups) > 3:
        groups = f"<details><summary>{len(section.groups)} reasons</summary>{groups}</details>"
    parts.append(groups)
    if section.lines:
        items = "".join(f"<li>{escape(line)}</li>" for line in section.lines)
        parts.append(f"<ul>{items}</ul>")
    return f"<section{label}>\n" + "\n".join(parts) + "\n</section>"


def anchors(titles: Sequence[str]) -> list[str]:
    """Titles as identifiers of a page, each another one; they need no escapes.

    Example:
        >>> anchors(["Checks: 3 passed", "ONNX", "ONNX 3", "ONNX", "ONNX"])
        ['checks-3-passed', 'onnx', 'onnx-3', 'onnx-2', 'onnx-4']
    """
    found: list[str] = []
    for title in titles:
        name = base = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
        again = 1
        while not name or name in found:
            again += 1
            name = f"{base}-{again}"
        found.append(name)
    return found


def pairs_html(pairs: Sequence[tuple[str, str]]) -> str:
    """Labels and their texts."""
    items = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in pairs)
    return f"<dl>{items}</dl>"


def table_html(section: Section) -> str:
    """A section's table, in a box that scrolls by itself where it is wider than the page."""
    marks = [' class="right"' if title.startswith(">") else "" for title in section.columns]
    head = "".join(
        f'<th scope="col"{mark}>{escape(title.lstrip(">"))}</th>' if title else "<td></td>"
        for mark, title in zip(marks, section.columns, strict=True)
    )
    rows = "\n".join(f"<tr>{_row(marks, row)}</tr>" for row in section.rows)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(section.title)}">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(marks: list[str], row: tuple[Cell, ...]) -> str:
    return "".join(
        f"<td{mark}>{cell_html(cell)}</td>" for mark, cell in zip(marks, row, strict=True)
    )


def cell_html(cell: Cell) -> str:
    """One cell: text, a verdict, or a share as figure and bar."""
    if isinstance(cell, Verdict):
        return f'<span class="{"pass" if cell.passed else "fail"}">{cell.word}</span>'
    if isinstance(cell, Share):
        width = 6 * max(cell.value, 0.0) / cell.largest if cell.largest > 0 else 0
        figure = f'<span class="figure">{percent(cell.value)}</span>'
        return f'{figure}<span class="share" style="width:{width:.2f}rem"></span>'
    return escape(cell)
