"""Save and load: where the output folder meets the stages that fill it and follow it."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cerewrite
from cerewrite import ir, output
from cerewrite.errors import OutputError
from cerewrite.frontend.loading import InputShape, describe_inputs, parse_input_shape
from cerewrite.runtime.alone import alone
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

PathLike = str | os.PathLike[str]
RECORDED = ("torch", "onnx", "onnxruntime", "numpy")


def versions() -> tuple[tuple[str, str], ...]:
    """Versions that a report records, the program's own first.

    Example:
        >>> [name for name, text in versions()][:2]
        ['cerewrite', 'python']
    """
    found = [("cerewrite", cerewrite.__version__), ("python", platform.python_version())]
    for name in RECORDED:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def save(
    path: PathLike,
    model: nn.Module,
    plan: ir.Plan,
    *,
    example_inputs: Any = None,
    source: str | None = None,
    report: ir.Report | None = None,
    onnx: bool | Mapping[str, Any] = False,
    opset: int = 20,
    overwrite: bool = False,
    clock: Clock | None = None,
) -> ir.Export | None:
    """Write a rewritten model's folder: complete, or absent whatever happens.

    Args:
        path: the folder.
        model: the rewritten model, trained or not.
        plan: the plan that was applied.
        example_inputs: a tuple or dict of tensors; their shapes are kept for later exports.
            Without any, they are the shapes that the plan was made on.
        source: spec of the original's factory, which ``model_ce.py`` will call.
        report: what to write as ``report.json`` and ``report.html``.
        onnx: write ``model.onnx`` too. A mapping gives options of
            `cerewrite.exporter.export_onnx`.
        opset: its operator set version.
        overwrite: replace an earlier conversion in ``path``.
        clock: times the stages.

    Returns:
        What the ONNX file is, if one was asked for.

    Raises:
        OutputError: if the folder exists and is not empty, or cannot be written.
        ExportError: if the ONNX file cannot be made.
    """
    from cerewrite import rewriting
    from cerewrite.frontend.unwrapping import unwrap

    clock = clock or Clock()
    model = unwrap(model)
    with output.staged_folder(path, overwrite=overwrite) as draft, alone():
        export = None
        if onnx is not False:
            given = {} if onnx is True else onnx
            with clock("export"):
                options = {"opset": opset, **given, "metadata": origin_of(plan, source)}
                export = _export(draft, model, example_inputs, options)
        with clock("save"):
            origin = output.Origin(source, _shapes(plan, example_inputs))
            target = Path(path).resolve()
            output.write_module(draft, target, plan.model, origin, version=cerewrite.__version__)
            mapped = dataclasses.replace(plan, renamed=rewriting.renamed(model))
            (draft / output.PLAN).write_text(ir.dumps(mapped), encoding="utf-8")
            output.save_weights(model, draft, fingerprint=plan.fingerprint)
        if report is not None:
            _write_report(draft, dataclasses.replace(report, export=export, seconds=clock.seconds))
    return export


def origin_of(plan: ir.Plan, source: str | None) -> dict[str, str]:
    """What an ONNX file says about where it came from."""
    return {"source": source or plan.model, "plan.fingerprint": plan.fingerprint}


def _export(draft: Path, model: nn.Module, inputs: Any, options: Mapping[str, Any]) -> ir.Export:
    from cerewrite import exporter, rewriting

    if inputs is None:
        inputs = rewriting.draw_inputs(model)
    export = exporter.export_onnx(model, draft / output.ONNX, inputs, **options)
    return dataclasses.replace(export, path=output.ONNX)


def _shapes(plan: ir.Plan, inputs: Any) -> tuple[InputShape, ...] | None:
    """Shapes to draw example inputs to, the plan's without any; None where they cannot be drawn."""
    if inputs is None:
        return tuple(map(parse_input_shape, plan.inputs)) or None
    found = describe_inputs(inputs)
    return None if found is None else tuple(found)


def _write_report(draft: Path, report: ir.Report) -> None:
    from cerewrite import reporter

    (draft / output.REPORT).write_text(ir.dumps(report), encoding="utf-8")
    (draft / output.PAGE).write_text(reporter.render_html(report), encoding="utf-8")


def load(
    path: PathLike, model: nn.Module | None = None, *, weights: bool = True, inplace: bool = False
) -> nn.Module:
    """The model of an output folder: the original architecture, rewritten, with its weights.

    Args:
        path: a folder that `convert` or `save` wrote.
        model: the original architecture; built by the folder's ``model_ce.py`` if not given.
        weights: whether to load the folder's weights.
        inplace: whether to change ``model`` itself; after a failure it is as it was.

    Raises:
        OutputError: if the folder is incomplete, damaged, or its weights do not fit.
        LoadError: if the original cannot be built.
        PlanError: if the plan cannot be read; `StalePlanError` if it is for another model.
        RewriteError: if a pass fails.
    """
    from cerewrite import planning, rewriting
    from passes.reinitialise import Reinitialise

    with alone():
        folder = Path(path)
        plan = read_plan(folder)
        planning.check_plan(plan)
        fresh = model is None
        original = output.build_original(folder) if model is None else model
        passes = rewriting.default_passes_with(Reinitialise("gain" if weights else None))
        if weights:
            passes = tuple(item for item in passes if item.name != "transfer_weights")
        result = rewriting.rewrite(plan, original, inplace=inplace or fresh, passes=passes).model
        if weights:
            try:
                output.load_weights(result, folder, fingerprint=plan.fingerprint)
            except BaseException:
                if inplace:
                    rewriting.revert(result)
                raise
        return result


def read_plan(folder: Path) -> ir.Plan:
    """The plan of an output folder.

    Raises:
        OutputError: if there is no such folder, or no plan in it.
        PlanError: if the plan cannot be read.
    """
    output.recover(folder.resolve())
    if not folder.is_dir():
        raise OutputError(
            f"{folder}: no such folder", advice="name a folder that `cerewrite convert` wrote"
        )
    return output.read_record(ir.Plan, folder / output.PLAN)
