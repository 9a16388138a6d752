"""Convert, save, load in a fresh process, export, two engines: `benchmarks.round_trip`."""

from __future__ import annotations

import pytest

from benchmarks import round_trip


@pytest.mark.slow
@pytest.mark.parametrize("name", (*round_trip.EXAMPLES, "resnet50"))
def test_the_same_outputs_everywhere(name: str) -> None:
    pytest.importorskip("openvino", reason="the extra `engines` is not installed")
    if name in round_trip.PIXELS:
        pytest.importorskip("torchvision", reason="torchvision is not installed")
    rows = round_trip.round_trip(name)
    assert [row["precision"] for row in rows] == ["float32", "float16"]
    for row in rows:
        assert round_trip.passed(row), row


def test_a_figure_beyond_its_limit_is_seen() -> None:
    good = {"precision": "float16", "loaded": 0.0, "onnxruntime": 9e-4, "openvino": 1e-4}
    assert round_trip.passed(good)
    assert not round_trip.passed({**good, "openvino": 2e-3})
    assert not round_trip.passed({**good, "precision": "float32"})
    assert not round_trip.passed({**good, "loaded": 1e-4})
