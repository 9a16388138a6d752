"""Numbers, shapes and files that the user gives: refused by name before any work."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import cerewrite
from cerewrite import output
from cerewrite.errors import LoadError, OutputError, UsageError
from cerewrite.frontend.loading import make_inputs, parse_input_shape, read_inputs
from cerewrite.planning import make_plan
from cerewrite.runtime.fingerprint import class_name, fingerprint
from tests.cli.running import run
from tests.planning.builders import analysis_of, chain_region


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", 2**64, "above 9223372036854775807"),
        ("--seed", -1, "not in the range"),
        ("--min-width", "1e22", "not a valid integer"),
        ("--min-width", 10**22, "above 2147483647"),
        ("--draws", "\u0663", "not a valid integer"),
        ("--draws", "1_0", "not a valid integer"),
        ("--draws", "9" * 5000, "above 2147483647"),
        ("--precision", "nan", "not a finite number"),
        ("--precision", "inf", "not a finite number"),
        ("--input", "99999999999,16", "1,599,999,999,984 values"),
        ("--input", "=2,16", "not a shape"),
        ("--input", "\u0662,16", "not a shape"),
        ("--input", "2,16:", "unknown dtype ''"),
        ("--max-params", 0, "not in the range"),
    ],
)
def test_numbers_at_the_command_line(option: str, value: object, message: str) -> None:
    command = ["convert" if option == "--max-params" else "plan", "no/such/model.py"]
    result = run(*command, option, value)
    assert result.exit_code == UsageError.exit_code, result.output
    assert message in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 10**400}, "seed is a number of more than 128 bits"),
        ({"min_width": 10**22}, "min_width is 10000000000000000000000"),
        ({"min_width": 1e22}, "min_width is 1e\\+22"),
        ({"min_width": True}, "min_width is True"),
        ({"fixed": {"a": (10**6, (4, 4))}}, "fixed design of 'a' is 1000000"),
        ({"fixed": {"a": (1, (2**31, 4))}}, "fixed design of 'a' is 2147483648"),
    ],
)
def test_numbers_in_python(options: dict[str, object], message: str) -> None:
    analysis = analysis_of([chain_region("a", [64, 64], 128, 128)])
    with pytest.raises(UsageError, match=message):
        make_plan(analysis, **options)  # type: ignore[arg-type]


def test_designs_beyond_int64_are_over_budget() -> None:
    analysis = analysis_of([chain_region("a", [64, 64], 128, 128)])
    with pytest.raises(cerewrite.PlanError, match="reach 2,305,843,009,213,693,952"):
        make_plan(analysis, fixed={"a": (2**16, (2**31 - 1, 2**31 - 1))})
    with pytest.raises(UsageError, match="cannot be read"):
        make_plan(analysis, fixed={"a": "4x" + 30 * "9"})


def test_inputs_that_memory_cannot_hold() -> None:
    shape = parse_input_shape("16384,16384")
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (1 << 28), limits[1]))
    try:
        with pytest.raises(UsageError, match="cannot be held"):
            make_inputs([shape])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def npy(shape: object, descr: str = "'<f4'", data: bytes = b"\0" * 64) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + data


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(f"{name}.npy", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy((10**12,)), "length|size|larger|claims"),
        (npy((2**62, 2**62)), "."),
        (npy("(" * 5000), "."),
        (npy((4,), "'O'"), "."),
        (npy((4,), "'<c8'"), "complex64"),
        (npy((4,), "'<M8[s]'"), "real numbers"),
        (archive(arr_0=npy((10**12,))), "."),
        (archive(arr_1=npy((4, 4))), "holds arr_1, not arr_0"),
        (archive(**{"not a name": npy((4, 4))}), "no name of a keyword"),
        (archive(), "holds no array"),
        (archive(arr_0=b"\0" * 3_000_000_00)[:200], "."),
        (b"PK\x05\x06" + b"\0" * 18, "holds no array"),
        (b"", "."),
    ],
)
def test_arrays_that_are_none(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(data)
    with pytest.raises(LoadError, match=f"no inputs can be read: .*({message})"):
        read_inputs(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        with made.open("arr_0.npy", "w", force_zip64=True) as member:
            for _ in range(33):
                member.write(bytes(1 << 20))
        info = made.getinfo("arr_0.npy")
        info.file_size = 1 << 40  # what the directory then claims
    with pytest.raises(LoadError, match="claims 1,099,511,627,776 bytes"):
        read_inputs(path)


def test_arrays_of_other_byte_orders_are_read(tmp_path: Path) -> None:
    values = np.arange(6).reshape(2, 3)
    np.save(tmp_path / "a.npy", values.astype(">f8"))
    (found,) = read_inputs(tmp_path / "a.npy")
    assert found.dtype == torch.float32 and found.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("weight", torch.int8, "weight is I8 instead of torch.float32"),
        ("weight", torch.complex64, "weight is C64 instead of torch.float32"),
        ("num_batches_tracked", torch.float32, "is F32 instead of torch.int64"),
    ],
)
def test_weights_of_another_type(
    tmp_path: Path, name: str, change: torch.dtype, message: str
) -> None:
    model = nn.BatchNorm1d(3)
    output.save_weights(model, tmp_path, fingerprint="f")
    tensors = load_file(tmp_path / output.WEIGHTS)
    save_file({**tensors, name: tensors[name].to(change)}, tmp_path / output.WEIGHTS)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(OutputError, match=message):
        output.load_weights(model, tmp_path)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_metadata_that_is_nested_too_deeply(tmp_path: Path) -> None:
    tensors = {key: value.clone() for key, value in nn.Linear(2, 2).state_dict().items()}
    save_file(tensors, tmp_path / output.WEIGHTS, metadata={"cerewrite": "[" * 100_000})
    with pytest.raises(OutputError, match="nested more than"):
        output.load_weights(nn.Linear(2, 2), tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.json")
    with pytest.raises(OutputError, match="not a regular file"):
        output.read_record(cerewrite.Plan, tmp_path / "plan.json")
    with pytest.raises(LoadError, match="not a regular file"):
        read_inputs(tmp_path / "plan.json")


def test_loops_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for place in (tmp_path / "a", tmp_path / "a" / "out"):
        with pytest.raises(OutputError, match="cannot be written"):
            output.check_target(place, folder=True)
    with pytest.raises(OutputError, match="no such folder"):
        cerewrite.load(tmp_path / "a")
    with pytest.raises(OutputError, match="symbolic links"):
        output.read_record(cerewrite.Plan, tmp_path / "a")


def test_a_module_that_cannot_describe_itself() -> None:
    class Broken(nn.Linear):
        def extra_repr(self) -> str:
            raise ValueError("no")

    with pytest.raises(LoadError, match=r"'0' \(Broken\): its extra_repr raised ValueError: no"):
        fingerprint(nn.Sequential(Broken(2, 2)))


def test_class_names_become_identifiers() -> None:
    odd = type('Net"""\nimport os', (nn.Sequential,), {})
    model = odd(*(nn.Linear(16, 16) for _ in range(4)))
    found = cerewrite.analyze(model, torch.ones(2, 16), gain="he")
    assert found.model == class_name(model) == "Net____import_os"
    json.dumps(found.model)
