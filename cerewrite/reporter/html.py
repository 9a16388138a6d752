"""A report as one HTML file: no scripts, no fonts, no pictures from anywhere else."""

from __future__ import annotations

from html import escape

from cerewrite import ir
from cerewrite.errors import printable
from cerewrite.ir.assessed import Assessment
from cerewrite.ir.diagnosed import Diagnosis
from cerewrite.planning import Landscape
from cerewrite.reporter.assessed import assessment_sections
from cerewrite.reporter.charts import costs_chart, layers_chart
from cerewrite.reporter.content import report_sections
from cerewrite.reporter.diagnosed import comparison_sections, diagnosis_sections
from cerewrite.reporter.figures import percent
from cerewrite.reporter.landscape_chart import landscape_chart, planned_landscape
from cerewrite.reporter.section import Cell, Section, Share, Verdict

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --dim: #61676f; --paper: #ffffff;
  --line: #dfe2e6; --bar: #2f6fb0; --after: #c46a1b; --good: #1f7a3f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7e9; --dim: #9aa1aa; --paper: #16181b;
  --line: #33373d; --bar: #6ba6e0; --after: #e39a55; --good: #6cc489; --bad: #f2877f; } }
body { margin: 2rem auto; max-width: 66rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--dim); font-weight: 500; border-bottom: 1px solid var(--line); }
th, td { padding: .15rem .8rem .15rem 0; vertical-align: top; }
.right { text-align: right; white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.pass { color: var(--good); } .fail { color: var(--bad); font-weight: 700; }
.share { display: inline-block; height: .7em; background: var(--bar); margin-left: .5rem; }
.figure { display: inline-block; min-width: 3.5rem; text-align: right; }
figure { margin: 0; } svg { width: 100%; height: auto; }
svg text { fill: var(--dim); font: 12px system-ui, sans-serif; }
.bar { fill: var(--bar); } .after { fill: var(--after); }
.axis { stroke: var(--line); } .cell { fill: var(--bar); }
.budget { fill: none; stroke: var(--after); stroke-width: 2; } .dot { fill: var(--after); }
.ring, .chosen { fill: none; stroke: var(--ink); stroke-width: 2; } .chosen { fill: var(--good); }
summary { cursor: pointer; color: var(--dim); }
footer { margin-top: 3rem; color: var(--dim); font-size: .85rem; }
"""

LONG = 40
"""Rows above which a table is folded away."""


def render_html(report: ir.Report) -> str:
    """The report as the text of one self-contained HTML file.

    It holds the same sections as the terminal, with every row, and charts: each layer's share
    of nu, costs and measures before and after, and the landscape of the region in which the plan
    gains most. Whatever came from the user is escaped.

    Args:
        report: what to render.

    Returns:
        A whole HTML document.
    """
    name = escape(report.analysis.model)
    charts = [_figure("Share of nu per layer", layers_chart(report.analysis))]
    if report.plan is not None:
        charts.insert(0, _figure("Before and after", costs_chart(report.plan)))
        gained = planned_landscape(report.plan)
        if gained is not None:
            mapped, chosen = gained
            heading = f"Landscape of {mapped.region}"
            charts.append(_figure(heading, landscape_chart(mapped, [chosen])))
    sections = report_sections(report, full=True)
    if report.plan is not None:
        sections.insert(0, sections.pop())
    body = "\n".join([*charts, *map(_section, sections)])
    footer = f"cerewrite, report schema {report.schema}; model {report.analysis.fingerprint}"
    return _page(name, body, escape(footer))


def render_assessment(found: Assessment) -> str:
    """What members say on labelled data as the text of one self-contained HTML file.

    Args:
        found: what to render.
    """
    body = "\n".join(map(_section, assessment_sections(found)))
    footer = f"cerewrite, assessment schema {found.schema}"
    return _page(escape(found.model), body, escape(footer))


def render_diagnosis(found: tuple[Diagnosis, ...], names: tuple[str, ...] = ()) -> str:
    """Diagnoses as the text of one self-contained HTML file.

    Args:
        found: one, or two that are compared.
        names: what the two are called.
    """
    sections = [part for one in found for part in diagnosis_sections(one, full=True)]
    if len(found) == 2:
        sections = comparison_sections((found[0], found[1]), (names[0], names[1])) + sections
    footer = f"cerewrite, diagnosis schema {found[0].schema}"
    return _page(escape(found[0].model), "\n".join(map(_section, sections)), escape(footer))


def render_landscape(mapped: Landscape) -> str:
    """The landscape of one region as the text of one self-contained HTML file.

    Args:
        mapped: what to render.

    Returns:
        A whole HTML document.
    """
    heading = f"Landscape of {mapped.region}"
    return _page(escape(mapped.region), _figure(heading, landscape_chart(mapped)), "cerewrite")


def _page(name: str, body: str, footer: str) -> str:
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>cerewrite: {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{name}</h1>\n{body}\n"
        f"<footer>{footer}</footer>\n</body>\n</html>\n"
    )
    return printable(text, keep="\n")


def _figure(title: str, svg: str) -> str:
    return f"<h2>{escape(title)}</h2>\n<figure>{svg}</figure>"


def _section(section: Section) -> str:
    mark = ' class="fail"' if section.failed else ""
    parts = [f"<h2{mark}>{escape(section.title)}</h2>"]
    if section.facts:
        parts.append(_pairs(section.facts))
    if section.columns and section.rows:
        table = _table(section)
        if len(section.rows) > LONG:
            table = f"<details><summary>{len(section.rows)} rows</summary>{table}</details>"
        parts.append(table)
    for title, text in section.groups:
        parts.append(f"<h3>{escape(title)}</h3>{_pairs(text)}")
    if section.lines:
        items = "".join(f"<li>{escape(line)}</li>" for line in section.lines)
        parts.append(f"<ul>{items}</ul>")
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _pairs(pairs: tuple[tuple[str, str], ...]) -> str:
    items = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in pairs)
    return f"<dl>{items}</dl>"


def _table(section: Section) -> str:
    marks = [' class="right"' if title.startswith(">") else "" for title in section.columns]
    head = "".join(
        f"<th{mark}>{escape(title.lstrip('>'))}</th>"
        for mark, title in zip(marks, section.columns, strict=True)
    )
    rows = "\n".join(f"<tr>{_row(marks, row)}</tr>" for row in section.rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(marks: list[str], row: tuple[Cell, ...]) -> str:
    return "".join(f"<td{mark}>{_cell(cell)}</td>" for mark, cell in zip(marks, row, strict=True))


def _cell(cell: Cell) -> str:
    if isinstance(cell, Verdict):
        return f'<span class="{"pass" if cell.passed else "fail"}">{cell.word}</span>'
    if isinstance(cell, Share):
        width = 6 * cell.value / cell.largest if cell.largest > 0 else 0
        figure = f'<span class="figure">{percent(cell.value)}</span>'
        return f'{figure}<span class="share" style="width:{width:.2f}rem"></span>'
    return escape(cell)
