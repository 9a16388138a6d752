"""The example models: they load, run, and have the parameters that they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from cerewrite.exporter import export_onnx

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "params", "classes"),
    [("mlp_digits", 826_378, 10), ("vgg_cnn", 4_102_090, 10), ("resnet50", 25_557_032, 1000)],
)
def test_an_example_has_the_parameters_it_says_and_runs(
    name: str, params: int, classes: int
) -> None:
    module = load(name)
    model = module.build_model()
    assert isinstance(model, nn.Module)
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert f"{params:,}" in (EXAMPLES / "README.md").read_text()
    assert f"{params:,}" in (module.build_model.__doc__ or "")
    (x,) = module.example_inputs()
    assert isinstance(x, Tensor)
    assert torch.equal(x, module.example_inputs()[0])
    scores = model(x)
    assert scores.shape == (2, classes)
    scores.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_resnet50_has_the_published_names_and_shapes() -> None:
    state = load("resnet50").build_model().state_dict()
    assert len(state) == 320
    assert state["layer3.5.conv2.weight"].shape == (256, 256, 3, 3)
    assert state["layer4.0.downsample.1.running_var"].shape == (2048,)
    assert state["fc.weight"].shape == (1000, 2048)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", ["mlp_digits", "vgg_cnn", pytest.param("resnet50", marks=pytest.mark.slow)]
)
def test_an_example_is_exported_and_agrees(name: str, tmp_path: Path) -> None:
    module = load(name)
    torch.manual_seed(0)
    export = export_onnx(module.build_model(), tmp_path / "m.onnx", module.example_inputs())
    assert [record.batch for record in export.parity] == [0, 1, 2, 7]
    assert all(record.passed for record in export.parity)
