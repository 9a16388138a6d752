from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cerewrite.frontend import tracing
from cerewrite.frontend.tracing import trace
from tests.cli.running import run


def test_explain(model: Path) -> None:
    result = run("explain", "model.py", "2", "--estimator", "analytic")
    assert result.exit_code == 0
    for text in ("2: width 64", "kappa", "f_up", "region", "interior"):
        assert text in result.output
    readout = run("explain", "model.py", "8", "--estimator", "analytic").output
    assert "refused at 8" in readout
    assert "exit" in readout


def test_explain_an_unknown_layer(model: Path) -> None:
    result = run("explain", "model.py", "layer9", "--estimator", "analytic")
    assert result.exit_code == 2
    assert "has no layer 'layer9'" in result.stderr


def test_explain_traces_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []

    def counted(*arguments: Any) -> Any:
        traces.append(trace(*arguments))
        return traces[-1]

    monkeypatch.setattr(tracing, "trace", counted)
    assert run("explain", "model.py", "2", "--estimator", "analytic").exit_code == 0
    assert len(traces) == 1
