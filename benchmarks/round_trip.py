"""Convert, save, load in a fresh process, export, and run in two engines: the same outputs?

    python -m benchmarks.round_trip [--write] [NAME ...]

One row per model and precision, each figure the largest over batch sizes 1, 2, 7 and 32 and over
the outputs of ``max |a - b| / max |b|``: `loaded`, the model of a process that has only the
folder against the model that was saved (PyTorch, float32); `onnxruntime` and `openvino`, the
engines, in a process without torch, against PyTorch. In float16 PyTorch computes in float32, with
the model's own float32 weights, on the same 16-bit inputs: the rounding of the weights counts. The
limits are 1e-5, and 1e-3 in float16. Weights are drawn, zero heads and the settings of norms
perturbed. OpenVINO needs the extra `engines`. `--write` puts the table into docs/DEPLOYMENT.md,
rows of models that were not asked for left as they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "DEPLOYMENT.md"
HEAD = "| model | precision | loaded | ONNX Runtime | OpenVINO |\n| --- | --- | --- | --- | --- |\n"
BATCHES = (1, 2, 7, 32)
LIMITS = {"float32": 1e-5, "float16": 1e-3}
PIXELS = {"resnet50": 64, "vgg16_bn": 32, "densenet121": 64, "inception_v3": 96}
EXAMPLES = ("mlp_digits", "vgg_cnn")
NAMES = (*EXAMPLES, *PIXELS)

Row = dict[str, Any]


def resnet50() -> Any:
    """torchvision's, as are the others below."""
    return _torchvision("resnet50")


def vgg16_bn() -> Any:
    """VGG-16 with batch norm."""
    return _torchvision("vgg16_bn")


def densenet121() -> Any:
    """DenseNet-121."""
    return _torchvision("densenet121")


def inception_v3() -> Any:
    """Inception v3, without the auxiliary head, which only training reads."""
    return _torchvision("inception_v3", aux_logits=False, init_weights=False)


def _torchvision(name: str, **options: Any) -> Any:
    from benchmarks.zoo import torchvision_models

    return getattr(torchvision_models(), name)(**options)


def main(names: list[str], write: bool = False) -> int:
    """Print the table; the exit code counts rows beyond their limit."""
    print(f"{'model':14} {'precision':9} {'loaded':>8} {'onnxruntime':>12} {'openvino':>9}")
    missed = 0
    for name in names or NAMES:
        for row in round_trip(name):
            figures = ("missing" if row[key] is None else f"{row[key]:.1e}" for key in COLUMNS)
            cells = (name, row["precision"], *figures)
            print("{:14} {:9} {:>8} {:>12} {:>9}".format(*cells), flush=True)
            missed += not passed(row)
            if write:
                PAGE.write_text(with_row(PAGE.read_text(), cells))
    return missed


def with_row(text: str, cells: tuple[str, ...]) -> str:
    r"""A page with one more row in its table; a row of the same model and precision goes.

    Example:
        >>> page = HEAD + "| a | float32 | 0 | 1 | 1 |\n\nend\n"
        >>> with_row(page, ("a", "float32", "0", "2", "2")).splitlines()[2:]
        ['| a | float32 | 0 | 2 | 2 |', '', 'end']
    """
    before, after = text.split(HEAD)
    table, gap, rest = after.partition("\n\n")
    line = f"| {' | '.join(cells)} |"
    lines = [row for row in table.splitlines() if row.split("|")[1:3] != line.split("|")[1:3]]
    lines = [*lines, line]
    return before + HEAD + "\n".join(lines) + gap + rest


COLUMNS = ("loaded", "onnxruntime", "openvino")


def passed(row: Row) -> bool:
    """Whether every figure that there is lies within its limit."""
    limit = LIMITS[row["precision"]]
    engines = [row[key] for key in ("onnxruntime", "openvino") if row[key] is not None]
    return row["loaded"] <= LIMITS["float32"] and max(engines) <= limit


def round_trip(name: str) -> list[Row]:
    """The rows of one model."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _step("save_converted", name, folder)
        _step("load_and_export", folder)
        _step("run_engines", folder)
        rows: list[Row] = json.loads((place / "rows.json").read_text())
    return rows


def _step(*arguments: str) -> None:
    """One step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.round_trip", "--step", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {result.stderr[-3000:]}")


def save_converted(name: str, folder: str) -> None:
    """Convert a model, perturb it, save it with its inputs and outputs."""
    import torch

    import cerewrite
    from cerewrite.frontend.loading import load
    from cerewrite.verifier.perturb import perturb

    torch.manual_seed(0)
    example = name in EXAMPLES
    spec = f"examples/{name}/model.py:build_model" if example else f"benchmarks.round_trip:{name}"
    loaded = load(spec, seed=0)
    row = loaded.example_inputs[0][:1] if example else torch.randn(1, 3, PIXELS[name], PIXELS[name])
    # without a limit on FLOPs a VGG's first maps outgrow the memory at batch 32
    budget = ["params", "flops"] if name == "vgg16_bn" else ["params"]
    result = cerewrite.convert(
        loaded.module,
        row,
        budget=budget,
        min_width=4,
        estimator="analytic",
        allow="all",
        widths="free",
    )
    model = result.model
    perturb(model)
    model.eval()
    inputs = {str(batch): torch.randn(batch, *row.shape[1:]) for batch in BATCHES}
    _keep(folder, "inputs", inputs)
    _keep(folder, "saved", {batch: model(x) for batch, x in inputs.items()})
    cerewrite.save(Path(folder, "model"), model, result.plan, example_inputs=(row,), source=spec)


def load_and_export(folder: str) -> None:
    """In a fresh process: load, compare with what was saved, export in both precisions."""
    import torch

    import cerewrite

    model = cerewrite.load(Path(folder, "model")).eval()
    inputs = {batch: torch.from_numpy(array) for batch, array in _kept(folder, "inputs").items()}
    _keep(folder, "float32", {batch: model(x) for batch, x in inputs.items()})
    _keep(folder, "float16", {batch: model(x.half().float()) for batch, x in inputs.items()})
    for precision in LIMITS:
        path = Path(folder, f"{precision}.onnx")
        # the limit is judged in the table, batch 32 included
        options = {"float16": precision == "float16", "limit": 0.1, "batches": (2,)}
        cerewrite.export_onnx(model, path, inputs["2"], **options)


def run_engines(folder: str) -> None:
    """In a fresh process without torch: run the files, and write the rows."""
    inputs, rows = _kept(folder, "inputs"), []
    loaded = _largest(_kept(folder, "float32"), _kept(folder, "saved"))
    for precision in LIMITS:
        path = Path(folder, f"{precision}.onnx")
        given = {batch: array.astype(precision) for batch, array in inputs.items()}
        wanted, row = _kept(folder, precision), {"precision": precision, "loaded": loaded}
        for name, run in (("onnxruntime", _onnxruntime), ("openvino", _openvino)):
            found = run(path, given)
            row[name] = None if found is None else _largest(found, wanted)
        rows.append(row)
    assert "torch" not in sys.modules
    Path(folder, "rows.json").write_text(json.dumps(rows))


def _onnxruntime(path: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {batch: session.run(None, {name: array})[0] for batch, array in inputs.items()}


def _openvino(path: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    try:
        import openvino
    except ImportError:
        return None
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", exact)
    return {batch: compiled([array])[0] for batch, array in inputs.items()}


def _largest(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    errors = []
    for batch, right in wanted.items():
        left, exact = found[batch].astype(np.float64), right.astype(np.float64)
        assert left.shape == exact.shape
        errors.append(float(np.abs(left - exact).max() / np.abs(exact).max()))
    return max(errors) if np.isfinite(errors).all() else float("inf")


def _keep(folder: str, name: str, tensors: dict[str, Any]) -> None:
    arrays = {batch: tensor.detach().numpy() for batch, tensor in tensors.items()}
    np.savez(Path(folder, f"{name}.npz"), **arrays)


def _kept(folder: str, name: str) -> dict[str, Any]:
    return dict(np.load(Path(folder, f"{name}.npz")))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        steps = {step.__name__: step for step in (save_converted, load_and_export, run_engines)}
        steps[sys.argv[2]](*sys.argv[3:])
    else:
        asked = sys.argv[1:]
        raise SystemExit(main([name for name in asked if name != "--write"], "--write" in asked))
