"""Convert one model of the zoo and print what came of it as one line of JSON.

python -m benchmarks.zoo.worker NAME SOURCE FAMILY [--onnx]
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.catalogue import Entry
from benchmarks.zoo.subject import Inputs, build
from cerewrite import analysis, exporter, ir, planning, rewriting, verifier
from cerewrite.errors import (
    AnalysisError,
    CerewriteError,
    NoClosedFormError,
    PlanError,
    TraceError,
    VerificationError,
)
from cerewrite.frontend import tracing
from cerewrite.frontend.unwrapping import unwrap
from cerewrite.planning.problem import TRUSTED
from cerewrite.runtime.clock import Clock

Record = dict[str, Any]


def main(name: str, source: str, family: str, *flags: str) -> None:
    """Work on one model; whatever it prints itself is dropped."""
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        record = work_on(Entry(name, source, family), onnx="--onnx" in flags)
    print(json.dumps(record))


def work_on(
    entry: Entry, *, onnx: bool = False, say: Callable[[Record], None] = lambda record: None
) -> Record:
    """Convert one model.

    Args:
        entry: the model.
        onnx: whether to export it too.
        say: hears what is known so far, before every stage; a limit may end the process there.

    Returns:
        What came of it: typed refusals and errors of ours are outcomes too.
    """
    record: Record = {"name": entry.name, "source": entry.source, "family": entry.family}

    @contextlib.contextmanager
    def watch(stage: str) -> Iterator[None]:
        record["stage"] = stage
        say(record)
        yield

    clock = Clock(watch)
    try:
        with clock("load"):
            model, inputs, record["pixels"] = build(entry)
        work = export if onnx else convert
        work(model, inputs, record, clock)
    except CerewriteError as error:
        outcome = "declined" if isinstance(error, _EXPECTED) else "failed"
        record |= {"outcome": outcome, "error": _line(error), "advice": error.advice}
    except Exception as error:
        outcome = "not built" if record["stage"] == "load" else "crashed"
        record |= {"outcome": outcome, "error": _line(error), "where": _places(error)}
    record["seconds"] = {stage: round(seconds, 2) for stage, seconds in clock.seconds}
    return record


_EXPECTED = (TraceError, AnalysisError, PlanError)
"""Refusals; a RewriteError, VerificationError or ExportError is a fault of ours."""


def convert(model: nn.Module, inputs: Inputs, record: Record, clock: Clock) -> nn.Module | None:
    """Primal at equal parameters and FLOPs, verified; every stage leaves its figures.

    Returns:
        The converted model; None if nothing was split.

    Raises:
        VerificationError: if a check fails.
    """
    model = unwrap(model)  # attention in one piece is opened into layers, as conversions do
    with clock("trace"):
        traced = tracing.trace(model, inputs)
    _note_trace(traced, record)
    try:
        plan = _plan(traced, model, inputs, record, clock)
    except PlanError as error:
        if "gain nonzero" not in error.advice or record["gain"] == "nonzero":
            raise
        plan = _plan(traced, model, inputs, record, clock, gain="nonzero")
    record["min_width"] = TRUSTED
    record["split"] = len(plan.splits)
    for key in ("params", "flops", "nu", "log_variance"):
        record[f"{key}_before"] = getattr(plan.baseline, key)
        record[f"{key}_after"] = getattr(plan.planned, key)
    if not plan.splits:
        record["outcome"] = "unchanged"
        return None
    with clock("rewrite"):
        rewritten = rewriting.rewrite(plan, model).model
    with clock("verify"):
        verification = verifier.verify(model, rewritten, plan, inputs)
    checks = {check.name: check for check in verification.checks}
    record["membership"] = checks["membership"].value
    record["gradients"] = checks["gradients"].passed
    record["signature"] = checks["signature"].passed
    if not verification.passed:
        failed = "; ".join(f"{c.name}: {c.detail}" for c in verification.failures)
        raise VerificationError(failed, advice="report this as a bug")
    record["outcome"] = "converted"
    return rewritten


def _plan(
    traced: ir.TracedModel,
    model: nn.Module,
    inputs: Inputs,
    record: Record,
    clock: Clock,
    gain: str = "as-built",
) -> ir.Plan:
    """Analyse and plan; what was found is noted before a plan is refused."""
    with clock("analyse"):
        found = _analyze(traced, model, inputs, record, gain)
    record["scope"] = found.scope
    record["regions"] = len(found.regions)
    record["refusals"] = dict(Counter(r.code for r in found.rejections).most_common())
    record["nu_before"] = found.nu.value
    with clock("plan"):
        return planning.make_plan(
            found, budget=["params", "flops"], allow="all", widths="free", min_gain=0.0
        )


DRAWS = 4
"""Initialisations that the jackknife draws where an operator has no closed form."""


def _analyze(
    traced: ir.TracedModel, model: nn.Module, inputs: Inputs, record: Record, gain: str
) -> ir.Analysis:
    """Block scope, or network scope where that holds no region and for Hugging Face's models.

    By the closed form; by the jackknife where an operator has none, which the record says.
    """
    try:
        found = _estimated("analytic", gain, traced, model, inputs, record)
    except NoClosedFormError as error:
        record["no_closed_form"] = _line(error)
        _require_regions(traced, record)
        found = _estimated("jackknife", gain, traced, model, inputs, record)
    block = found.at_scope("block")
    whole = record["source"] == "transformers" or not block.regions
    return found.at_scope("network") if whole else block


def _require_regions(traced: ir.TracedModel, record: Record) -> None:
    """Refuse a model without a region: no estimator would find one.

    Raises:
        PlanError: as planning would.
    """
    found = {scope: analysis.find_regions(traced, scope) for scope in ("block", "network")}
    if not any(regions for regions, _ in found.values()):
        rejections = (*traced.rejections, *found["network"][1])
        codes = Counter(rejection.code for rejection in rejections)
        record |= {"scope": "network", "regions": 0, "refusals": dict(codes.most_common())}
        raise planning.no_regions(traced.name, "network", rejections)


def _estimated(
    estimator: str,
    gain: str,
    traced: ir.TracedModel,
    model: nn.Module,
    inputs: Inputs,
    record: Record,
) -> ir.Analysis:
    """With a gain, or with a head of zeros drawn where that kills the signal."""
    record |= {"estimator": estimator, "gain": gain}
    options: dict[str, Any] = {"estimator": estimator, "scope": "auto", "draws": DRAWS}
    try:
        return analysis.analyze(traced, model, inputs, gain=gain, **options)
    except AnalysisError as error:
        if "gain nonzero" not in error.advice or gain == "nonzero":
            raise
        record["gain"] = "nonzero"
        return analysis.analyze(traced, model, inputs, gain="nonzero", **options)


def export(model: nn.Module, inputs: Inputs, record: Record, clock: Clock) -> None:
    """The converted model's ONNX file in ONNX Runtime, at several batch sizes."""
    result = convert(model, inputs, record, clock)
    if result is None:
        return
    with tempfile.TemporaryDirectory() as folder, clock("export"):
        found = exporter.export_onnx(result, Path(folder) / "model.onnx", inputs)
    record["parity"] = max(item.relative_error for item in found.parity)
    record["batches"] = [item.batch for item in found.parity]


def _note_trace(traced: ir.TracedModel, record: Record) -> None:
    """Rung, layers, and how many of them lie between two hidden widths."""
    record |= {
        "rung": traced.frontend,
        "layers": len(traced.layers),
        "params_before": traced.params,
    }
    record["hidden"] = sum(
        bool(layer.sources) and layer.target is not None for layer in traced.layers
    )
    record["earlier"] = [r.reason for r in traced.rejections if r.code == "earlier-rung"]


def _places(error: Exception) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]


def _line(error: Exception) -> str:
    message = error.message if isinstance(error, CerewriteError) else str(error)
    lines = message.strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


if __name__ == "__main__":
    main(*sys.argv[1:])
