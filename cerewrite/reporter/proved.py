"""What was checked and exported, and what it took."""

from __future__ import annotations

from collections.abc import Iterable

from cerewrite import ir
from cerewrite.planning.measures import MEASURES
from cerewrite.reporter.figures import count, listed, plural, scaled, shape, with_error
from cerewrite.reporter.section import Section, Verdict


def checks(verification: ir.Verification) -> Section:
    """Every check of the rewritten model, passed or failed, with its figure and limit."""
    rows = tuple(
        (
            check.name,
            Verdict(check.passed),
            "-" if check.value is None else f"{check.value:.3g}",
            "-" if check.limit is None else f"{check.limit:.3g}",
            check.detail,
        )
        for check in verification.checks
    )
    failed = len(verification.failures)
    title = f"Checks: {failed} of {len(rows)} FAILED" if failed else f"Checks: {len(rows)} passed"
    columns = ("check", "", ">value", ">limit", "detail")
    return Section(title, columns=columns, rows=rows, failed=failed > 0)


def exported(export: ir.Export) -> Section:
    """The ONNX file and its agreement with PyTorch in ONNX Runtime."""
    ends = [("input", end) for end in export.inputs] + [("output", end) for end in export.outputs]
    rows = tuple(
        (
            count(record.batch),
            Verdict(record.passed),
            f"{record.relative_error:.1e}",
            f"{record.limit:.0e}",
            record.note or "the model as it stands",
        )
        for record in export.parity
    )
    return Section(
        title="ONNX",
        facts=(
            ("file", f"{export.path}, {scaled(export.size, 'B')}"),
            ("graph", f"opset {export.opset}, {count(export.nodes)} nodes"),
            *((label, f"{name} {shape(sizes)}") for label, (name, sizes) in ends),
        ),
        columns=(">batch", "", ">relative error", ">limit", "PyTorch against ONNX Runtime"),
        rows=rows,
        failed=not all(record.passed for record in export.parity),
    )


def alarms(report: ir.Report) -> tuple[str, ...]:
    """One line per stage that failed; such a model must not be used."""
    lines = []
    if report.verification is not None and not report.verification.passed:
        names = listed([check.name for check in report.verification.failures])
        lines.append(f"FAILED checks: {names}. Do not use the rewritten model.")
    if report.export is not None and not all(record.passed for record in report.export.parity):
        lines.append("FAILED parity: PyTorch and ONNX Runtime differ. Do not use the ONNX file.")
    return tuple(lines)


def kept_promise(report: ir.Report) -> tuple[str, ...]:
    """What the plan promises beside what draws of both models showed."""
    promise = report.promise
    if promise is None:
        return ()
    title = MEASURES[promise.measure].title
    if promise.refused:
        return (f"{title} of the rewritten model was not measured: {promise.refused}.",)
    pairs = plural(promise.draws, "pair") + " of draws"
    line = (
        f"Measured: {title} is {with_error(promise.measured, promise.stderr)} times the "
        f"original's ({pairs}), promised {promise.promised:.3f}."
    )
    if promise.worse:
        return (f"WORSE than the original. {line}",)
    if promise.broken:
        return (f"Not as promised, beyond 3 errors and 20 %. {line}",)
    return (line,)


def promised(report: ir.Report) -> tuple[Section, ...]:
    """Promise and measurement as a section of their own, where anything was measured."""
    lines = kept_promise(report)
    failed = report.promise is not None and (report.promise.worse or report.promise.broken)
    title = "Promises against measurements"
    return (Section(title, lines=lines, failed=failed),) if lines else ()


def run_facts(report: ir.Report, *, full: bool) -> list[Section]:
    """Seconds per stage; with ``full`` also versions and renamed parameters."""
    facts: list[tuple[str, str]] = []
    if report.seconds:
        facts.append(("seconds", _pairs((name, f"{value:.2f}") for name, value in report.seconds)))
    if report.versions and full:
        facts.append(("versions", _pairs(report.versions)))
    renamed = tuple(pair for pair in report.renamed if pair[0] != pair[1])
    rows = renamed if full else ()
    if renamed and not full:
        facts.append(("renamed", f"{plural(len(renamed), 'parameter')} (-v shows them)"))
    if not facts and not rows:
        return []
    columns = ("old parameter", "new parameter") if rows else ()
    return [Section("Run", facts=tuple(facts), columns=columns, rows=rows)]


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {text}" for name, text in pairs)
