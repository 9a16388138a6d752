"""A second engine reads the same file and gives the same figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cerewrite
from cerewrite.nn import BlockDiagonalLinear

pytestmark = pytest.mark.slow
openvino: Any = pytest.importorskip("openvino", reason="the extra `engines` is not installed")


def test_openvino_agrees_at_every_batch_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 16),
        nn.ReLU(),
        BlockDiagonalLinear(16, 16, 4),
        nn.GELU(),
        BlockDiagonalLinear(16, 16, 4),
        nn.ReLU(),
        nn.Linear(16, 3),
    )
    model(torch.randn(16, 3, 6, 6))
    model.eval()
    path = tmp_path / "m.onnx"
    cerewrite.export_onnx(model, path, torch.randn(2, 3, 6, 6))
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", exact)
    assert [port.any_name for port in compiled.inputs] == ["input"]
    assert compiled.inputs[0].partial_shape[0].is_dynamic
    for batch in (1, 2, 7, 32):
        images = torch.randn(batch, 3, 6, 6)
        with torch.no_grad():
            wanted = model(images).numpy()
        found = compiled([images.numpy()])[0]
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
