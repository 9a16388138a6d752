"""Bad input to artefacts: typed errors, nothing lost, nothing left behind.

Damaged and newer records and weights are in `tests.output.test_output` and
`tests.output.test_weights`, files that ONNX Runtime refuses in `tests.exporter.test_exporter`.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite import output
from cerewrite.errors import CerewriteError, ExportError, OutputError, RewriteError
from cerewrite.exporter import export_onnx

NOBODY = 65534
ROWS = (torch.randn(2, 8, generator=torch.Generator().manual_seed(0)),)


def chain(width: int = 32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
    )


def folder(path: Path) -> None:
    with output.staged_folder(path, overwrite=True) as draft:
        output.save_weights(chain(256), draft, fingerprint="f")


WRITERS: dict[str, tuple[Callable[[Path], object], type[CerewriteError]]] = {
    "folder": (folder, OutputError),
    "onnx": (lambda path: export_onnx(chain(256), path, ROWS), ExportError),
    "text": (lambda path: output.write_file(path, "x" * 200_000, overwrite=True), OutputError),
    "triton": (
        lambda path: cerewrite.export_triton(chain(256), path.parent, ROWS, name=path.name),
        CerewriteError,
    ),
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 100 kB: a real error of the system, as of a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk(tmp_path: Path, what: str) -> None:
    write, error = WRITERS[what]
    with pytest.raises(error, match="cannot be written"):
        write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("what", ["folder", "onnx", "text"])
def test_a_full_disk_keeps_what_was_there(tmp_path: Path, what: str) -> None:
    write, error = WRITERS[what]
    out = tmp_path / "out"
    kept = out
    if what == "folder":
        out.mkdir()
        kept = out / output.PLAN
    kept.write_text("old")
    with pytest.raises(error):
        write(out)
    assert kept.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that may be read and not written, seen by somebody who is not root."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield place
    finally:
        if root:
            os.seteuid(0)
        place.chmod(0o755)
        shutil.rmtree(place)


@pytest.mark.parametrize("what", WRITERS)
def test_a_read_only_folder(closed: Path, what: str) -> None:
    write, error = WRITERS[what]
    with pytest.raises(error, match="cannot be written: Permission denied"):
        write(closed / "out")
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize("what", WRITERS)
def test_a_folder_that_may_not_be_entered(closed: Path, what: str) -> None:
    if os.geteuid() == NOBODY:
        os.seteuid(0)
        closed.chmod(0o700)
        os.seteuid(NOBODY)
    else:
        closed.chmod(0o000)
    write, error = WRITERS[what]
    with pytest.raises(error, match="cannot be written: Permission denied"):
        write(closed / "deep" / "out")


@pytest.mark.parametrize("inplace", [False, True])
def test_a_plan_that_names_missing_layers(inplace: bool) -> None:
    model = chain()
    plan = cerewrite.convert(model, ROWS[0], estimator="analytic").plan
    region, *others = plan.regions
    assert [layer.name for layer in region.layers] == ["0", "2", "4"]
    layers = (region.layers[0], dataclasses.replace(region.layers[1], name="ghost"))
    wrong = dataclasses.replace(region, layers=(*layers, *region.layers[2:]))
    plan = dataclasses.replace(plan, regions=(wrong, *others))
    before, modules = copy.deepcopy(model.state_dict()), dict(model.named_modules())
    with pytest.raises(RewriteError, match="the model has no module 'ghost'") as caught:
        cerewrite.apply(plan, model, inplace=inplace)
    assert caught.value.advice
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
