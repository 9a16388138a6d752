"""How fast the rewritten model is, said before anything else if it is slower."""

from __future__ import annotations

from cerewrite import ir
from cerewrite.reporter.figures import count, number, plural
from cerewrite.reporter.section import Section


def seconds(value: float) -> str:
    """A duration to three digits.

    Example:
        >>> seconds(0.01234), seconds(1.5), seconds(4.2e-5)
        ('12.3 ms', '1.5 s', '42 us')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1 or unit == "us":
            return f"{value * scale:.3g} {unit}"
    raise AssertionError(value)


def timings(report: ir.Report) -> list[Section]:
    """Medians of both models and of the alternative; nothing where nothing was timed."""
    sections = [] if report.forecast is None else [_forecast(report.forecast)]
    if not report.timings:
        return sections
    rows = tuple(_row(timing) for timing in report.timings)
    refused = tuple(
        f"{timing.engine} at batch {timing.batch}: {timing.refused}"
        for timing in report.timings
        if timing.refused
    )
    runs = plural(report.timings[0].runs, "interleaved run")
    columns = ("engine", ">batch", ">threads", ">before", ">+-", ">after", ">+-", ">ratio")
    medians = Section(f"Speed: medians of {runs}", columns=columns, rows=rows, lines=refused)
    sections.append(medians)
    other = report.alternative
    if other is not None:
        facts = (
            ("params", count(other.planned.params)),
            ("nu", number(other.planned.nu)),
        )
        rows = tuple(_row(timing) for timing in other.timings)
        sections.append(
            Section(f"Aligned alternative: {other.what}", facts=facts, columns=columns, rows=rows)
        )
    return sections


def _forecast(forecast: ir.Forecast) -> Section:
    """A forecast of time against what the built model measured."""
    timing = forecast.measured
    where = f"{timing.engine}, batch {timing.batch}, {plural(timing.threads, 'thread')}"
    facts = (
        ("asked", f"at most {forecast.asked:.3f}x of the original's time ({where})"),
        ("forecast", f"{forecast.forecast:.3f}x"),
        (
            "measured",
            f"{timing.ratio:.3f}x: {seconds(timing.rewritten)} +- "
            f"{seconds(timing.rewritten_spread)} after {seconds(timing.original)} +- "
            f"{seconds(timing.original_spread)}",
        ),
        ("error", f"{forecast.error:+.1%} of the measured time"),
        ("built", f"{plural(forecast.rounds, 'plan')} until one was within the limit"),
    )
    held = (
        ()
        if forecast.held
        else ("The limit is NOT held by more than 5 %: the machine may be busy, or no design is.",)
    )
    name = "Training step" if forecast.cost == "step" else "Latency"
    return Section(name, facts=facts, lines=held, failed=not forecast.held)


def _row(timing: ir.Timing) -> tuple[str, ...]:
    where = (timing.engine, str(timing.batch), str(timing.threads))
    if timing.refused:
        return (*where, "-", "-", "-", "-", "-")
    return (
        *where,
        seconds(timing.original),
        seconds(timing.original_spread),
        seconds(timing.rewritten),
        seconds(timing.rewritten_spread),
        f"{timing.ratio:.2f}x",
    )


def slower(report: ir.Report) -> tuple[str, ...]:
    """A line for each engine that runs the rewritten model slower, beyond both spreads."""
    lines = []
    for timing in report.timings:
        if timing.slower:
            lines.append(
                f"SLOWER: {timing.ratio:.2f} times the original's time in {timing.engine} at "
                f"batch {timing.batch}" + _other(report.alternative, timing)
            )
    return tuple(lines)


def _other(alternative: ir.Alternative | None, timing: ir.Timing) -> str:
    if alternative is None:
        return "."
    same = next(
        item
        for item in alternative.timings
        if (item.engine, item.batch, item.threads) == (timing.engine, timing.batch, timing.threads)
    )
    return (
        f"; with {alternative.what}: {same.ratio:.2f} times, nu {number(alternative.planned.nu)}."
    )
