"""Save and load: where the output folder meets the stages that fill it and follow it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import cerewrite
from cerewrite import ir, output
from cerewrite.api.options import ExportOptions
from cerewrite.api.stages import export_onnx
from cerewrite.errors import OutputError
from cerewrite.frontend.loading import describe_inputs, remember
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
    listed = [("cerewrite", cerewrite.__version__), ("python", platform.python_version())]
    for name in RECORDED:
        try:
            listed.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(listed)


def save(
    path: PathLike,
    model: nn.Module,
    plan: ir.Plan,
    *,
    example_inputs: ir.Inputs | None = None,
    source: str | None = None,
    report: ir.Report | None = None,
    onnx: bool | ExportOptions = False,
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
            given: ExportOptions = {} if onnx is True else onnx
            with clock("export"):
                options: ExportOptions = {
                    "opset": opset,
                    **given,
                    "metadata": origin_of(plan, source),
                }
                export = export_onnx(model, draft / output.ONNX, example_inputs, **options)
                export = dataclasses.replace(export, path=output.ONNX)
        with clock("save"):
            mapped = dataclasses.replace(
                plan,
                renamed=rewriting.renamed(model),
                inputs=_shapes(plan, example_inputs),
                source=output.relative_source(source, Path(path).resolve()),
            )
            mapped = ir.validate(mapped, "plan")
            (draft / output.PLAN).write_text(ir.dumps(mapped), encoding="utf-8")
            output.write_module(
                draft, mapped.model, mapped.source, mapped.inputs, version=cerewrite.__version__
            )
            output.save_weights(model, draft, fingerprint=plan.fingerprint)
        if report is not None:
            report = dataclasses.replace(report, export=export, seconds=clock.seconds)
            _write_report(draft, dataclasses.replace(report, plan=report.plan and mapped))
    if source is not None:
        remember(source)
    return export


def origin_of(plan: ir.Plan, source: str | None) -> dict[str, str]:
    """What an ONNX file says about where it came from."""
    return {"source": source or plan.model, "plan.fingerprint": plan.fingerprint}


def _shapes(plan: ir.Plan, inputs: ir.Inputs | None) -> tuple[str, ...]:
    """Shapes to draw example inputs to, the plan's without any; none where they cannot be drawn."""
    if inputs is None:
        return plan.inputs
    return tuple(map(str, describe_inputs(inputs) or ()))


def _write_report(draft: Path, report: ir.Report) -> None:
    from cerewrite import reporter

    (draft / output.REPORT).write_text(ir.dumps(report), encoding="utf-8")
    (draft / output.PAGE).write_text(reporter.render_html(report), encoding="utf-8")


def load(
    path: PathLike,
    model: nn.Module | None = None,
    *,
    weights: bool = True,
    inplace: bool = False,
    trust: bool = False,
    max_params: int | None = None,
) -> nn.Module:
    """The model of an output folder: the original architecture, rewritten, with its weights.

    Args:
        path: a folder that `convert` or `save` wrote.
        model: the original architecture. If it is not given, the factory that the plan names is
            run, provided that you converted a model of it on this machine.
        weights: whether to load the folder's weights.
        inplace: whether to change ``model`` itself; after a failure it is as it was.
        trust: build the original by running the folder's ``model_ce.py``, whatever it does.
        max_params: most parameters that the plan may build; 4 times the original's if not given.

    Raises:
        OutputError: if the folder is incomplete, damaged, or its weights do not fit.
        LoadError: if the original cannot be built, or its factory is not one that you have used.
        PlanError: if the plan cannot be read, or would build too much; `StalePlanError` if it is
            for another model.
        RewriteError: if a pass fails.
    """
    from cerewrite import planning, rewriting
    from passes.reinitialise import Reinitialise

    with alone():
        folder = Path(path)
        plan = read_plan(folder)
        planning.check_plan(plan, max_params=max_params)
        fresh = model is None
        original = output.original_of(folder, plan, trust=trust) if model is None else model
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
    with contextlib.suppress(RuntimeError):  # a loop of links: there is no such folder
        output.recover(folder.resolve())
    if not folder.is_dir():
        raise OutputError(
            f"{folder}: no such folder", advice="name a folder that `cerewrite convert` wrote"
        )
    return output.read_record(ir.Plan, folder / output.PLAN)
