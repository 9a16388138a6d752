"""Hostile files: plans, reports, weights and calibration inputs, edited by hypothesis."""

from __future__ import annotations

import copy
import io
import json
import os
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

import cerewrite
from benchmarks.reliability import edits
from benchmarks.reliability.group import Counts, register
from benchmarks.reliability.sandbox import try_all
from cerewrite import ir, output, reporter
from cerewrite.errors import printable
from cerewrite.frontend import loading
from cerewrite.rewriting.transfer.calibration import outputs

WIDTH = 16


def network() -> nn.Sequential:
    """A chain with norms, small enough to be rewritten in milliseconds."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width in (WIDTH, WIDTH, WIDTH):
        layers += [nn.Linear(WIDTH, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 4)).eval()


@cache
def good_files() -> dict[str, bytes]:
    """The files of a conversion, by name."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        budget = ["params", "memory"]
        options = {"estimator": "analytic", "allow": "all", "widths": "free"}
        cerewrite.convert(
            network(), torch.randn(4, WIDTH), budget=budget, min_width=4, out=out, **options
        )
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def write(path: Path, case: str | bytes) -> None:
    """Write a case as a file."""
    path.write_bytes(case if isinstance(case, bytes) else case.encode("utf-8", "surrogatepass"))


@register(
    "plans",
    tries="plan.json with one to three hostile edits, read and applied to its model",
    promise="is carried out, or refused with a typed error that names the field; a million "
    "members are counted, not built",
    limit="a valid plan of another design for the same model is carried out: it is what it says",
)
def plans(count: int) -> Counts:
    """Plans, read and applied."""
    good = json.loads(good_files()[output.PLAN])
    model = network()

    def attempt(path: Path) -> None:
        plan = output.read_record(ir.Plan, path)
        cerewrite.apply(plan, model)

    return try_all(edits.json_edits(good), write, attempt, count)


@register(
    "reports",
    tries="report.json with one to three hostile edits, read and shown as page and in a terminal",
    promise="no field reaches the page or the terminal unescaped",
    limit="the figures of a report are not measured again: a wrong number is shown as it is",
)
def reports(count: int) -> Counts:
    """Reports, read and shown."""
    good = json.loads(good_files()[output.REPORT])

    def attempt(path: Path) -> None:
        report = output.read_record(ir.Report, path)
        page = reporter.render_html(report)
        file = io.StringIO()
        reporter.print_report(report, Console(file=file, width=100), verbose=True)
        ours = page.count("<script") == page.count("</script") == 4  # data, libraries, its own
        assert ours and "<img" not in page, "markup of the report in the page"
        assert printable(page, "\n") == page, "control characters in the page"
        assert printable(file.getvalue(), "\n") == file.getvalue(), "in the terminal"

    return try_all(edits.json_edits(good), write, attempt, count)


@st.composite
def safetensors_cases(draw: st.DrawFn) -> bytes:
    """Files of weights with an edited header, a wrong length of it, or edited bytes."""
    good = good_files()[output.WEIGHTS]
    if draw(st.booleans()):
        return draw(edits.byte_edits(good))
    (size,) = struct.unpack("<Q", good[:8])
    header = json.loads(good[8 : 8 + size])
    name = draw(st.sampled_from(sorted(header)))
    kinds = ["edit", "type", "metadata", "length"]
    kind = draw(st.sampled_from(kinds))
    text = json.dumps(header)
    if kind == "type" and name != "__metadata__":
        header[name]["dtype"] = draw(st.sampled_from(["I8", "C64", "F64", "BOOL", "F8_E4M3", "?"]))
        text = json.dumps(header)
    elif kind == "metadata":
        deep = draw(st.sampled_from(["[" * 50_000, '{"schema": -1}', "null", "9" * 5000, "{"]))
        header["__metadata__"] = {"cerewrite": deep}
        text = json.dumps(header)
    elif kind == "edit":
        text = draw(edits.json_edits(header))
    raw = text.encode("utf-8", "surrogatepass")
    length = draw(st.sampled_from([0, 2**31, 2**63, 2**64 - 1])) if kind == "length" else len(raw)
    return struct.pack("<Q", length) + raw + good[8 + size :]


@register(
    "weights",
    tries="model.safetensors with another header, other types, other lengths or other bytes",
    promise="is loaded if names, shapes and types are the model's; nothing is changed otherwise",
    limit="values are not judged: weights that are wrong or not finite are loaded",
)
def weights(count: int) -> Counts:
    """Weights, read into their model."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / output.PLAN, good_files()[output.PLAN])
        plan = output.read_record(ir.Plan, Path(folder) / output.PLAN)
    model = cerewrite.apply(plan, network())

    def prepare(path: Path, case: bytes) -> None:
        path.mkdir(exist_ok=True)
        write(path / output.WEIGHTS, case)

    def attempt(path: Path) -> None:
        output.load_weights(copy.deepcopy(model), path, fingerprint=plan.fingerprint)

    return try_all(safetensors_cases(), prepare, attempt, count)


def npy(header: str, data: bytes = b"\0" * 256) -> bytes:
    """An array file with a header that may say anything."""
    raw = header.encode("utf-8", "surrogatepass") + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(raw)) + raw + data


@st.composite
def array_cases(draw: st.DrawFn) -> bytes:
    """Files of arrays: headers that claim anything, archives of them, edited bytes."""
    kind = draw(st.sampled_from(["header", "header", "archive", "bytes", "zip bytes", "good"]))
    if kind in ("bytes", "good"):
        file = io.BytesIO()
        np.save(file, np.ones((4, WIDTH), dtype=draw(st.sampled_from(["f4", ">f8", "i1", "c8"]))))
        return file.getvalue() if kind == "good" else draw(edits.byte_edits(file.getvalue()))
    size = st.sampled_from([0, 1, 4, WIDTH, -1, 2**31, 2**40, 2**63, 10**30])
    shape = draw(
        st.lists(size, max_size=4).map(tuple).map(str)
        | st.sampled_from(["None", "'a'", "(" * 9_000, "(4," * 60, "(1.5,)", f"({'9' * 5000},)"])
    )
    types = ["'<f4'", "'O'", "'|V8'", "'<c16'", "'<M8[s]'", "'<U4'", "'<f16'", "[('a','<f4')]", "7"]
    descr = draw(st.sampled_from(types))
    member = npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")
    if kind == "header":
        return member
    file = io.BytesIO()
    name = st.sampled_from(
        ["arr_0", "arr_1", "arr_7", "x", "input", "not a name", "../../x", "\x1b"]
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in draw(st.lists(name, max_size=3, unique=True)):
            archive.writestr(f"{part}.npy", draw(st.sampled_from([member, b"", b"\0" * 10**6])))
    data = file.getvalue()
    return draw(edits.byte_edits(data)) if kind == "zip bytes" and data else data


@register(
    "calibration",
    tries=".npy and .npz files whose headers claim terabytes, objects or text, broken archives",
    promise="no more is read than the file holds and than 2 GiB; no pickle is ever opened",
    limit="whether the values are examples of the user's data is not known",
)
def calibration(count: int) -> Counts:
    """Calibration inputs, read and given to a model."""
    model = network()

    def attempt(path: Path) -> None:
        found = loading.read_inputs(path)
        outputs(model, found)

    return try_all(array_cases(), write, attempt, count)


@register(
    "odd files",
    tries="a pipe, a device, a folder, a loop of links, an empty and a huge sparse file in the "
    "place of every file of a folder",
    promise="is refused at once, without waiting for a pipe or reading a device",
    limit="a file that another process changes while it is read gives what was read",
)
def odd_files(count: int) -> Counts:
    """Things that are no regular files, wherever a file is read."""
    kinds = ["pipe", "device", "folder", "loop", "empty", "sparse", "missing", "locked"]
    readers = ["plan", "report", "weights", "calibration"]
    model = network()

    def prepare(path: Path, case: tuple[str, str]) -> None:
        path.mkdir(exist_ok=True)
        for old in path.iterdir():
            old.rmdir() if old.is_dir() and not old.is_symlink() else old.unlink()
        make(path / (output.WEIGHTS if case[1] == "weights" else case[1]), case[0])

    def attempt(path: Path) -> None:
        (file,) = list(path.iterdir()) or [path / output.WEIGHTS]
        if file.name == output.WEIGHTS:
            output.load_weights(model, path)
        elif file.name == "calibration":
            loading.read_inputs(file)
        else:
            output.read_record(ir.Plan if file.name == "plan" else ir.Report, file)

    cases = st.tuples(st.sampled_from(kinds), st.sampled_from(readers))
    return try_all(cases, prepare, attempt, min(count, len(kinds) * len(readers)))


def make(path: Path, kind: str) -> None:
    """Put something that is no good file at a path."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/zero" if kind == "device" else path.name)
    elif kind != "missing":
        path.touch(0o000 if kind == "locked" else 0o644)
        if kind == "sparse":
            os.truncate(path, 1 << 40)
