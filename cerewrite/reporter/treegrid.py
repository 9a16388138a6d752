"""The tree of modules as an HTML treegrid: whole without scripts, which fold and sort it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from cerewrite.reporter.elements import cell_html
from cerewrite.reporter.figures import count, scaled
from cerewrite.reporter.section import Share
from cerewrite.reporter.tree import Row, Shape

OPEN = 24
"""Rows up to which the tree is unfolded level by level at first."""

TOOLS = (
    '<div class="tools"><label>Search <input id="search" type="search"></label>'
    '<button id="expand" type="button">Expand all</button>'
    '<button id="collapse" type="button">Collapse all</button>'
    '<label><input id="flat" type="checkbox"> layers only, as a list</label>'
    '<span id="found" role="status"></span></div>'
)


def tree_html(rows: Sequence[Row], pages: Mapping[str, str], timed: str) -> str:
    """The section of the tree.

    Args:
        rows: from `cerewrite.reporter.tree.module_rows`.
        pages: identifier of every layer's own page, by its name.
        timed: what times are of, ``step`` or ``call``.
    """
    times = any(row.nanoseconds for row in rows)
    heads = [("Module", ""), ("Weight", ""), ("Members x width", "")]
    heads += [("Parameters", "down"), ("FLOPs", "down")]
    heads += [(f"ms per {timed}", "down")] if times else []
    heads += [("Share of variance", "down"), ("Left as it is", ""), ("Class", "")]
    numbers = ("Parameters", "FLOPs", f"ms per {timed}")
    head = "".join(
        f'<th scope="col" aria-sort="none"{" data-down" if down else ""}'
        f'{_right(name in numbers)}><button type="button">{escape(name)}</button></th>'
        for name, down in heads
    )
    largest = max((row.share or 0.0 for row in rows if row.layer), default=0.0)
    deepest = _unfolded(rows)
    body = "\n".join(
        _row(row, at, rows, deepest, times, largest, pages) for at, row in enumerate(rows)
    )
    return (
        f'<section aria-labelledby="modules"><h2 id="modules">Modules</h2>{TOOLS}'
        '<div class="scroll"><table id="tree" role="treegrid" aria-labelledby="modules">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div></section>"
    )


def _right(numeric: bool) -> str:
    return ' class="right"' if numeric else ""


def _unfolded(rows: Sequence[Row]) -> int:
    """The deepest level at which rows are shown at first: as deep as a screen holds."""
    deepest = max(row.level for row in rows)
    while deepest > 2 and sum(row.level <= deepest for row in rows) > OPEN:
        deepest -= 1
    return deepest


def _row(
    row: Row,
    at: int,
    rows: Sequence[Row],
    deepest: int,
    times: bool,
    largest: float,
    pages: Mapping[str, str],
) -> str:
    parent = at + 1 < len(rows) and rows[at + 1].level > row.level
    fold = '<span class="leaf"></span>'
    expanded = ""
    if parent:
        expanded = f' aria-expanded="{"true" if row.level < deepest else "false"}"'
        fold = '<button class="fold" type="button" aria-label="fold or unfold"></button>'
    path, _, own = row.name.rpartition(".")
    name = f'<span class="path">{escape(path)}.</span>' if path else ""
    name += escape(own or row.kind)
    page = ""
    if row.layer is not None:
        name = f'<a href="#{pages[row.name]}">{name}</a>'
        page = f' data-page="{pages[row.name]}"'
    # the model's own totals stand under "Before and after"
    counted = row.level > 1
    cells = [
        f"<td>{_pair(*row.shape, _shape)}</td>",
        f"<td>{_pair(*row.members, escape)}</td>",
        _numbers(row.params if counted else (0, 0), count),
        _numbers(row.flops if counted else (0, 0), scaled),
    ]
    if times:
        cells.append(_numbers(row.nanoseconds or (0, 0), lambda ns: f"{ns * 1e-6:.3g}"))
    share = row.share if counted else None
    bar = "" if share is None else cell_html(Share(share, largest if row.layer else max(share, 1)))
    cells.append(f"<td{_value(share)}>{bar}</td>")
    refused = "".join(
        f"<details><summary>{escape(item.code)}</summary>{escape(item.reason)}. "
        f"<strong>Do:</strong> {escape(item.advice)}</details>"
        for item in row.refused
    )
    return (
        f'<tr aria-level="{row.level}"{expanded} tabindex="-1"'
        f' data-name="{escape(row.name)}"{page}>'
        f'<th scope="row" style="--deep:{row.level - 1}">{fold}{name}</th>'
        f"{''.join(cells)}<td>{refused}</td>"
        f"<td>{escape(row.kind) if own else ''}</td></tr>"
    )


def _value(value: float | None) -> str:
    """What a cell is sorted by."""
    return "" if value is None else f' data-v="{value!r}"'


def _pair(before: object, after: object, text: Callable[..., str]) -> str:
    """Before and after, or one of them where nothing changes."""
    if before == after:
        return text(before)
    return f'<span class="was">{text(before)}</span><b class="now">{text(after)}</b>'


def _numbers(pair: tuple[int, int], text: Callable[[float], str]) -> str:
    if pair == (0, 0):
        return '<td class="right"></td>'
    return f'<td class="right"{_value(pair[1])}>{_pair(*pair, text)}</td>'


def _shape(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]" if shape else ""
