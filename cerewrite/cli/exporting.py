"""What an export is asked for, the export command, and model repositories for inference servers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

import cerewrite
from cerewrite import ir
from cerewrite.api import saving, serving
from cerewrite.api.options import ExportOptions
from cerewrite.cli import files
from cerewrite.cli import options as opt
from cerewrite.cli.command import Command
from cerewrite.cli.reading import Given
from cerewrite.cli.session import Session, check_file
from cerewrite.errors import UsageError
from cerewrite.frontend import loading

if TYPE_CHECKING:
    from torch import nn


def _axes(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, dict[int, str]]:
    """``NAME:AXIS`` and ``NAME:AXIS=SYMBOL`` as axes and their symbols, by input."""
    axes: dict[str, dict[int, str]] = {}
    for value in values:
        match = re.fullmatch(r"(\w+):(-?[0-9]{1,3})(?:=([A-Za-z_]\w*))?", value)
        if match is None:
            raise click.BadParameter(
                f"'{value}' is not NAME:AXIS, such as image:2 or image:2=height"
            )
        name, axis, symbol = match.groups()
        axes.setdefault(name, {})[int(axis)] = symbol or ""
    return axes


ONNX = opt.together(
    opt.number("--opset", "ONNX operator set.", default=20),
    opt.repeatable(
        "--dynamic",
        "dynamic_axes",
        "NAME:AXIS",
        "A further axis that may vary: image:2, or image:2=height.",
        callback=_axes,
    ),
    opt.switch("--float16", description="Export in half precision."),
    opt.switch("--external-data", description="Weights in a file of their own, however small."),
    stage="Export",
)
"""What an ONNX file is to be."""


def members_option(flag: str) -> opt.Decorator:
    """Outputs of the members in the ONNX file; ``--members`` is their number where one plans."""
    return click.option(
        flag,
        "member_outputs",
        type=click.Choice(["each", "disagreement"]),
        help="Add every member's output to the ONNX file, or how far members disagree.",
    )


WANTED = opt.switch("--onnx", description="Write and prove model.onnx as well.")


def onnx_request(options: Given) -> ExportOptions:
    """Take what `ONNX` gave out of ``options``, as options of the exporter."""
    return {
        "opset": options.pop("opset"),
        "dynamic_axes": options.pop("dynamic_axes"),
        "float16": options.pop("float16"),
        "members": options.pop("member_outputs"),
        "external_data": options.pop("external_data") or None,
    }


TRITON = opt.together(
    click.option(
        "--triton",
        type=click.Path(),
        metavar="DIR",
        help="Write NAME/1/model.onnx and NAME/config.pbtxt to this model repository.",
    ),
    click.option("--name", help="NAME in the repository.  [default: the model's class]"),
    stage="Export",
)


@dataclass(frozen=True, slots=True)
class Repository:
    """A model repository that was asked for, and has been found fit to be written."""

    path: str
    name: str
    force: bool

    @classmethod
    def of(
        cls, path: str | None, name: str | None, model: nn.Module, *, force: bool
    ) -> Repository | None:
        """None if none was asked for.

        Raises:
            OutputError: if it cannot be written.
        """
        if path is None:
            return None
        name = name or serving.default_name(type(model).__name__)
        serving.check_repository(path, name, overwrite=force)
        return cls(path, name, force)

    def write(
        self,
        session: Session,
        model: nn.Module,
        inputs: loading.Inputs,
        **request: Unpack[ExportOptions],
    ) -> ir.Export:
        """Export the model into it, and say so."""
        with session.clock("export"):
            export = serving.export_triton(
                model, self.path, inputs, name=self.name, overwrite=self.force, **request
            )
        session.say(f"\nwritten to {Path(self.path) / self.name} (Triton model repository)")
        return export


@click.command(cls=Command)
@click.argument("target")
@opt.OPENING
@opt.INPUT
@files.file_option("--out", "ONNX file to write.")
@ONNX
@members_option("--members")
@TRITON
@files.json_option("the files and their parity", lambda: tuple[ir.Export, ...])
@files.FORCE
@opt.RUN
def export(
    target: str,
    out: str | None,
    json: str | None,
    triton: str | None,
    name: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Export to ONNX and prove the file.

    TARGET is a folder that convert wrote, or any MODEL. The file is compared with PyTorch in
    ONNX Runtime at several batch sizes; --triton writes it as a model repository.
    """
    from cerewrite.cli.text import export_lines

    if out is None and triton is None:
        raise UsageError("nothing to write", advice="pass --out FILE, --triton DIR or both")
    session = Session.start(options, json, force=force)
    request = onnx_request(options)
    check_file(out, force=force)
    folder = Path(target)
    _, model, inputs = session.load_target(target, options)
    repository = Repository.of(triton, name, model, force=force)
    plan = saving.read_plan(folder) if folder.is_dir() else None
    request["seed"] = session.seed
    request["metadata"] = {"source": target} if plan is None else saving.origin_of(plan, None)
    records: list[ir.Export] = []
    if out is not None:
        with session.clock("export"):
            made = cerewrite.export_onnx(model, out, inputs, overwrite=force, **request)
        records.append(made)
        for line in export_lines(made):
            session.say(line)
    if repository is not None:
        records.append(repository.write(session, model, inputs, **request))
        for line in export_lines(records[-1]) if out is None else ():
            session.say(line)
    session.keep(json, tuple(records))
