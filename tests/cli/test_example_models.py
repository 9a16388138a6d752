"""The example models, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerewrite import ir, output
from tests.cli.running import run
from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_digits", "vgg_cnn", "resnet50"])
@pytest.mark.parametrize("objective", ["primal", "dual"])
def test_examples(tmp_path: Path, name: str, objective: str) -> None:
    out = tmp_path / "out"
    onnx = ["--onnx"] if objective == "primal" else []
    model = ROOT / "examples" / name / "model.py"
    result = run(
        "convert", model, "--objective", objective, "--out", out, *onnx, "--estimator", "analytic"
    )
    assert result.exit_code == 0, result.output
    report = output.read_record(ir.Report, out / output.REPORT)
    assert report.plan is not None
    before, after = report.plan.baseline, report.plan.planned
    if objective == "primal":
        assert 0.99 * before.params <= after.params <= before.params
        assert after.log_variance < before.log_variance
        assert report.export is not None
        assert {0, 1, 2, 7} <= {item.batch for item in report.export.parity}
        assert all(item.relative_error <= 1e-5 for item in report.export.parity)
    else:
        assert after.log_variance <= before.log_variance
        assert after.params < before.params
    assert run("verify", out, "-q").exit_code == 0
