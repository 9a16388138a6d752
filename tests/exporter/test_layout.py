"""Members first: no transpose between block-diagonal linears, and the same figures."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cerewrite
from cerewrite.exporter import export_onnx
from cerewrite.nn import BlockDiagonalLinear, MemberLayerNorm, MemberRMSNorm

pytestmark = pytest.mark.thorough

M, N = 4, 6
WIDTH = M * N


def interior(members: int = M) -> BlockDiagonalLinear:
    return BlockDiagonalLinear(WIDTH, WIDTH, members)


class Around(nn.Module):
    """A dense entry, what is under test, a dense exit."""

    def __init__(self, *inner: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.inner = nn.ModuleList(inner)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x).relu()
        for module in self.inner:
            h = h + module(h) if self.residual else module(h)
        return self.leave(h)


class Scaled(nn.Module):
    """Constants of every shape that a member's features may meet."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(WIDTH))
        self.row = nn.Parameter(torch.randn(1, WIDTH))
        self.one = nn.Parameter(torch.randn(1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale + self.row).clamp(-2, 2) * self.one - 0.3


class Members(nn.Module):
    """Work on members that have an axis of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(M, N))
        self.bias = nn.Parameter(torch.randn(N))

    def forward(self, x: Tensor) -> Tensor:
        y = x.unflatten(-1, (M, N))
        y = (y - y.mean(-1, keepdim=True)) * self.scale + self.bias
        return y.flatten(-2)


def transposes(path: Path) -> int:
    return [node.op_type for node in onnx.load(path).graph.node].count("Transpose")


def export(model: nn.Module, path: Path, *shape: int) -> int:
    """Transposes of the exported model, whose parity has passed."""
    record = export_onnx(model, path, (torch.randn(2, *shape, 5),), batches=(1, 2, 7, 32))
    assert all(item.passed for item in record.parity)
    return transposes(path)


def between() -> list[nn.Module]:
    """Whatever may stand between two block-diagonal linears."""
    pointwise = [nn.Identity(), nn.ReLU(), nn.SiLU(), nn.GELU(), nn.GELU(approximate="tanh")]
    pointwise += [nn.PReLU(), nn.Hardswish(), nn.Dropout(), nn.ELU(), nn.Softplus(), nn.Mish()]
    return [*pointwise, Scaled(), Members(), MemberLayerNorm(WIDTH, M), MemberRMSNorm(WIDTH, M)]


@pytest.mark.parametrize("shape", [(), (3,)], ids=["rows", "tokens"])
def test_one_transpose_in_and_one_out(shape: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    inner = [layer for module in between() for layer in (interior(), module)]
    each = [] if shape else [nn.PReLU(WIDTH)]  # torch reads a PReLU's channels from axis 1
    assert export(Around(*inner, *each, interior()), tmp_path / "m.onnx", *shape) == 2


def test_a_residual_stream_stays_in_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Around(interior(), nn.Sequential(interior(), nn.ReLU()), interior(), residual=True)
    assert export(model, tmp_path / "m.onnx") == 2


class Tap(nn.Module):
    """Gives an interior value away as an output, and to a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.first, self.second, self.side = interior(), interior(), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.first(F.relu(self.enter(x))))
        return h.exp(), self.side(h), self.leave(self.second(h.tanh()))


def test_values_that_leave_are_turned_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "m.onnx"
    record = export_onnx(Tap(), path, (torch.randn(2, 5),), batches=(1, 2, 7))
    assert all(item.passed for item in record.parity)
    assert [name for name, _ in record.outputs] == ["output_0", "output_1", "output_2"]
    assert transposes(path) == 3


def test_what_mixes_members_sees_the_rows_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # other members on the way, then a norm over all features
    model = Around(interior(4), nn.ReLU(), interior(6), nn.LayerNorm(WIDTH), interior(6))
    assert export(model, tmp_path / "m.onnx") == 6


def test_a_converted_chain_has_none_between_interiors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(16, 64), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Linear(64, 64), nn.GELU()]
    inputs = (torch.randn(2, 16),)
    model = cerewrite.convert(
        nn.Sequential(*layers, nn.Linear(64, 5)), inputs, estimator="analytic"
    ).model
    interiors = [m for m in model.modules() if isinstance(m, BlockDiagonalLinear)]
    assert len(interiors) == 4
    cerewrite.export_onnx(model, tmp_path / "m.onnx", inputs)
    assert transposes(tmp_path / "m.onnx") == 2


def test_grouped_convs_are_single_nodes_and_norms_fold_away(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    tail = [nn.Conv2d(32, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    inputs = (torch.randn(2, 3, 8, 8),)
    model = cerewrite.convert(nn.Sequential(*layers, *tail), inputs, estimator="analytic").model
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert max(conv.groups for conv in convs) > 1
    path, optimised = tmp_path / "c.onnx", tmp_path / "optimised.onnx"
    cerewrite.export_onnx(model, path, inputs)
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    groups = [next(a.i for a in node.attribute if a.name == "group") for node in nodes]
    assert groups == [conv.groups for conv in convs]
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    left = [node.op_type for node in onnx.load(optimised).graph.node]
    assert "BatchNormalization" not in left
