"""Diagnoses in tables: figures with what they are worth, layers, formulas, gaps."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cerewrite.ir.diagnosed import Diagnosis, Figure, Finding, Worth
from cerewrite.reporter.figures import count, number, plural, with_error
from cerewrite.reporter.section import SHOWN, Section

DATA = {
    "given": "as given",
    "gaussian": "standard normal by request: they are no data",
    "shapes": "none: only shapes were given",
}
OUTCOME = "loss"
"""Outcome of the trainings whose correlation stands beside a figure."""


def diagnosis_sections(found: Diagnosis, *, full: bool) -> list[Section]:
    """Figures, layers, what they are, gaps."""
    return [
        _headline(found),
        *_layers(found, full=full),
        *([_explained(found)] if full else []),
        *_gaps(found),
    ]


def comparison_sections(found: tuple[Diagnosis, Diagnosis], names: tuple[str, str]) -> list[Section]:
    """Two models side by side, figure by figure, and the gaps of each."""
    rows = []
    for diagnostic, figure in _every(found):
        left, right = (_figure(one, diagnostic, figure) for one in found)
        ratio = "-"
        if left and right and left.value * right.value > 0 and math.isfinite(left.value):
            ratio = f"{right.value / left.value:.3g}x"
        cells = (_value(left), _value(right), ratio)
        rows.append((f"{diagnostic}: {figure}", *cells, _worth_cell(found, diagnostic, figure)))
    facts = tuple((name, _facts(one)) for name, one in zip(names, found, strict=True))
    both = Section(
        title=f"{names[0]} against {names[1]}",
        facts=facts,
        columns=("", f">{names[0]}", f">{names[1]}", ">ratio", ">rank correlation"),
        rows=tuple(rows),
        lines=(WORTH,) if any(row[-1] for row in rows) else (),
    )
    return [both, *(part for one in found for part in _gaps(one))]


WORTH = (
    "rank correlation: with the final training loss of the designs of docs/REFEREE.md, alone and "
    "given total width and parameters; above 0: what the source calls better did better."
)


def _facts(found: Diagnosis) -> str:
    draws = plural(found.draws, "draw") if found.draws else "the weights as they stand"
    return (
        f"{found.model}, {count(found.params)} parameters; {plural(found.examples, 'example')}, "
        f"inputs {DATA[found.data]}; {draws}, seed {found.seed}"
    )


def _headline(found: Diagnosis) -> Section:
    rows = []
    for finding in found.findings:
        for index, figure in enumerate(finding.figures):
            rows.append(
                (
                    finding.diagnostic if index == 0 else "",
                    figure.name,
                    _value(figure),
                    _worth(finding.worth, figure.name),
                    _passes(finding) if index == 0 else "",
                )
            )
    notes = [f"{f.diagnostic}: {note}." for f in found.findings for note in f.notes]
    return Section(
        title=f"{found.model}: diagnostics of trainability",
        facts=(("of", _facts(found)),),
        columns=("diagnostic", "figure", ">value", ">rank correlation", ">passes"),
        rows=tuple(rows),
        lines=(*([WORTH] if any(f.worth for f in found.findings) else []), *notes),
    )


def _passes(finding: Finding) -> str:
    return f"{finding.forward:.3g} + {finding.backward:.3g}"


def _value(figure: Figure | None) -> str:
    return "-" if figure is None else with_error(figure.value, figure.error)


def _worth(rows: tuple[Worth, ...], figure: str) -> str:
    for row in rows:
        if row.figure == figure and row.outcome == OUTCOME:
            return f"{_signed(row.alone)}, given {_signed(row.given)}"
    return ""


def _signed(value: float) -> str:
    return f"{value:+.2f}" if math.isfinite(value) else "-"


def _worth_cell(found: tuple[Diagnosis, Diagnosis], diagnostic: str, figure: str) -> str:
    rows = (f.worth for one in found for f in one.findings if f.diagnostic == diagnostic)
    return _worth(next(rows, ()), figure)


def _every(found: tuple[Diagnosis, Diagnosis]) -> list[tuple[str, str]]:
    pairs = [
        (finding.diagnostic, figure.name)
        for one in found
        for finding in one.findings
        for figure in finding.figures
    ]
    order = [name for name, _ in dict.fromkeys(pairs)]
    return sorted(dict.fromkeys(pairs), key=lambda pair: order.index(pair[0]))


def _figure(found: Diagnosis, diagnostic: str, name: str) -> Figure | None:
    return next(
        (
            figure
            for finding in found.findings
            if finding.diagnostic == diagnostic
            for figure in finding.figures
            if figure.name == name
        ),
        None,
    )


def _layers(found: Diagnosis, *, full: bool) -> Iterator[Section]:
    """One table per diagnostic that has values per layer."""
    for finding in found.findings:
        tables = [figure for figure in finding.figures if figure.layers]
        names = dict.fromkeys(item.layer for figure in tables for item in figure.layers)
        if not names or not full:
            continue
        values = {
            (figure.name, item.layer): with_error(item.value, item.error)
            for figure in tables
            for item in figure.layers
        }
        rows = tuple(
            (layer, *(values.get((figure.name, layer), "") for figure in tables))
            for layer in names
        )
        yield Section(
            title=f"{finding.title}, by layer",
            columns=("layer", *(f">{figure.name}" for figure in tables)),
            rows=rows,
        )


def _explained(found: Diagnosis) -> Section:
    """What every figure is."""
    return Section(
        title="What was computed",
        groups=tuple(
            (
                finding.title,
                (
                    ("formula", finding.formula),
                    ("source", finding.source),
                    ("cost", f"{_passes(finding)} forward and backward passes of the batch a draw"),
                    ("took", f"{number(finding.seconds)} s"),
                    *(("caveat", text) for text in finding.caveats),
                    *_interval_rows(finding.worth),
                ),
            )
            for finding in found.findings
        ),
    )


def _interval_rows(rows: tuple[Worth, ...]) -> Iterator[tuple[str, str]]:
    for row in rows[: 3 * SHOWN]:
        alone = f"{_signed(row.alone)} [{_signed(row.alone_low)}, {_signed(row.alone_high)}]"
        given = f"{_signed(row.given)} [{_signed(row.given_low)}, {_signed(row.given_high)}]"
        yield "worth", f"{row.figure}, {row.outcome}: {alone}, given {given}, {row.designs} designs"


def _gaps(found: Diagnosis) -> Iterator[Section]:
    if found.gaps:
        yield Section(
            title=f"{found.model}: not diagnosed",
            groups=tuple(
                (gap.where, (("because", gap.reason), ("remedy", gap.advice)))
                for gap in found.gaps
            ),
        )
