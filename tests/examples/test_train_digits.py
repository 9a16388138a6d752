"""The training example, from end to end in a short setting."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import onnxruntime
import pytest

import cerewrite
from examples import train_digits

pytestmark = pytest.mark.thorough


def test_it_trains_both_and_exports_the_ensemble(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = functools.partial(cerewrite.convert, draws=32)  # how well it forecasts is not asked
    monkeypatch.setattr(cerewrite, "convert", few)
    train_digits.main(["--epochs", "1", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    row = re.search(r"^1 +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", text, re.MULTILINE)
    assert row is not None
    losses, accuracies = ([float(row[i]) for i in pair] for pair in ((1, 3), (2, 4)))
    assert max(losses) < 2.3  # a constant's is log 10
    assert min(accuracies) > 0.5
    params = re.search(r"^parameters +([\d,]+) +([\d,]+)$", text, re.MULTILINE)
    assert params is not None
    before, after = (int(cell.replace(",", "")) for cell in params.groups())
    assert 0.9 * before < after <= before
    digits = train_digits.load_data()
    session = onnxruntime.InferenceSession(tmp_path / "digits.onnx")
    (scores,) = session.run(None, {session.get_inputs()[0].name: digits.test_x.numpy()})
    right = float((scores.argmax(1) == digits.test_y.numpy()).mean())
    assert right == pytest.approx(accuracies[1], abs=0.003)
