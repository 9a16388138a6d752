"""Records as plain lines, for the commands whose answer is short."""

from __future__ import annotations

from collections.abc import Iterator

from cerewrite import ir


def export_lines(export: ir.Export) -> Iterator[str]:
    """An ONNX file and its parity."""
    yield f"{export.path}: opset {export.opset}, {export.nodes} nodes, {export.size:,} bytes"
    for label, ends in (("input", export.inputs), ("output", export.outputs)):
        for name, shape in ends:
            yield f"  {label} {name} [{', '.join(map(str, shape))}]"
    for item in export.parity:
        verdict = "passed" if item.passed else "FAILED"
        yield (
            f"  parity at batch {item.batch}: {verdict}, relative error "
            f"{item.relative_error:.1e} (limit {item.limit:.0e})"
        )


def check_lines(verification: ir.Verification) -> Iterator[str]:
    """Every check, passed or failed."""
    for check in verification.checks:
        yield f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.detail}"


def timing_lines(timings: tuple[ir.Timing, ...]) -> Iterator[str]:
    """Medians before and after, one line per engine and batch size."""
    for timing in timings:
        where = f"{timing.engine}, batch {timing.batch}, {timing.threads} threads"
        if timing.refused:
            yield f"{where}: not timed: {timing.refused}"
            continue
        before, after = (
            f"{1e3 * median:.3g} +- {1e3 * spread:.2g} ms"
            for median, spread in (
                (timing.original, timing.original_spread),
                (timing.rewritten, timing.rewritten_spread),
            )
        )
        yield f"{where}: {before} -> {after}, {timing.ratio:.2f} times the original"
