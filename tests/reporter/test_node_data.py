"""Node data of Model Explorer: its published form, and nodes of the exported program."""

from __future__ import annotations

import dataclasses
import json

import torch
from torch import nn

import cerewrite
from cerewrite import ir
from cerewrite.reporter import node_data
from tests.reporter import builders


class Net(nn.Module):
    """A convolution, a norm, two linears, one of them in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify."""
        return self.body(self.norm(self.conv(x)).relu().mean((2, 3)))


def test_every_layer_is_a_node_of_the_exported_program() -> None:
    net, images = Net(), torch.randn(2, 3, 6, 6)
    analysis = cerewrite.analyze(net, images, estimator="analytic", gain="he")
    results = json.loads(node_data(analysis))["results"]
    program = torch.export.export(net, (images,))
    inside = {node.name: node for node in program.graph.nodes}
    assert len(results) == 3 and set(results) <= set(inside)
    for layer in analysis.layers:
        stacks = [inside[key].meta["nn_module_stack"] for key, value in results.items()
                  if value["value"] == layer.share]  # fmt: skip
        assert any(layer.name in [name for name, _ in stack.values()] for stack in stacks)


def test_it_has_the_published_form() -> None:
    """`GraphNodeData`: results of numbers by node, and colours at the stops 0 and 1."""
    modules = tuple(
        ir.ModuleSummary(f"net.{i}", "Linear", (2, 2), 6, (f"linear_{i}",)) for i in range(0, 10, 2)
    )
    analysis = dataclasses.replace(builders.analysis(), modules=modules)
    lost = dataclasses.replace(analysis.layers[0], share=float("nan"))
    analysis = dataclasses.replace(analysis, layers=(lost, *analysis.layers[1:]))
    data = json.loads(node_data(analysis))
    assert set(data) <= {"results", "thresholds", "gradient"}
    assert data["results"]["linear_2"] == {"value": analysis.layers[1].share}
    assert "linear_0" not in data["results"] and len(data["results"]) == 4
    assert [item["stop"] for item in data["gradient"]] == [0, 1]
