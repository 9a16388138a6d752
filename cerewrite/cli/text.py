"""Records as plain lines, for the commands whose answer is short."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from cerewrite import ir
from cerewrite.errors import UsageError
from cerewrite.registry import Registry, suggest


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


def explain_lines(analysis: ir.Analysis, name: str) -> Iterator[str]:
    """What an analysis says about a layer, or about what was refused under that name.

    Raises:
        UsageError: if nothing has that name.
    """
    layer = next((item for item in analysis.layers if item.name == name), None)
    refusals = [item for item in analysis.rejections if _concerns(item, name)]
    regions = [item for item in analysis.regions if name in _members(item)]
    if layer is None and not refusals and not regions:
        known = [item.name for item in analysis.layers] + [r.where for r in analysis.rejections]
        raise UsageError(
            f"{analysis.model} has no layer '{name}'", advice=_hint(name, dict.fromkeys(known))
        )
    if layer is not None:
        yield f"{name}: width {layer.width}, {layer.params:,} parameters, {layer.flops:,} FLOPs"
        error = "" if layer.kappa_stderr is None else f" +- {layer.kappa_stderr:.2g}"
        yield f"  kappa {layer.kappa:.4g}{error}, {layer.share:.1%} of the model's sum"
        yield f"  f_up {layer.f_up:.4g}, f_dn {layer.f_dn:.4g}, rho {layer.rho:.3g}"
        yield f"  moments v_aa {layer.v_aa:.4g}, v_bb {layer.v_bb:.4g}, v_ab {layer.v_ab:.4g}"
        yield f"  seen by {layer.rung}{'; ' + layer.note if layer.note else ''}"
    for item in regions:
        region = item.region
        role = next((one.role for one in region.layers if one.name == name), "resized with it")
        yield (
            f"region {item.name} ({role}): nu {item.nu:.4g}, Var[log K] "
            f"{item.log_variance:.4g}, sum of kappa {item.leading_order:.4g}"
        )
        for size, width in zip(region.sizes, region.classes, strict=True):
            yield f"  {size} channels, written first by {width}"
    for refusal in refusals:
        yield f"refused at {refusal.where} ({refusal.code}): {refusal.reason}"
        yield f"  -> {refusal.advice}"
    if not regions and not refusals:
        yield "in no region, and refused nowhere: its width is fixed from outside"


def _hint(name: str, known: dict[str, None]) -> str:
    near = suggest(name, known)
    return near if len(known) <= 20 else f"{near.partition(' (choices')[0][:60]}; see -v of analyze"


def _members(estimate: ir.RegionEstimate) -> set[str]:
    region = estimate.region
    names = {item.name for item in region.layers} | {item.name for item in region.modules}
    return names | {estimate.name, *region.classes}


def _concerns(refusal: ir.Rejection, name: str) -> bool:
    return refusal.where == name or f"'{name}'" in refusal.reason


def registry_lines() -> Iterator[str]:
    """Every registered thing with its first docstring line."""
    from cerewrite.budgets import BUDGETS
    from cerewrite.estimators import ESTIMATORS
    from cerewrite.initialisers import INITIALISERS
    from cerewrite.measures import MEASURES
    from cerewrite.oprules import OPRULES
    from cerewrite.rewriter import PASSES

    kinds: tuple[tuple[str, Registry[Any]], ...] = (
        ("operators", OPRULES),
        ("estimators", ESTIMATORS),
        ("budgets", BUDGETS),
        ("measures", MEASURES),
        ("passes", PASSES),
        ("initialisers", INITIALISERS),
    )
    for title, registry in kinds:
        yield f"{title}:"
        for name, item in registry.items():
            kind = item if isinstance(item, type) else type(item)
            yield f"  {name:<20} {(inspect.getdoc(kind) or '').partition(chr(10))[0]}".rstrip()
