"""Users' own operators and modules: a rule in a few lines, taken up without any other edit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import UsageError
from cerewrite.frontend.loading import load
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Op
from cerewrite.ops.base import (
    FAMILIES,
    OPRULES,
    TARGETS,
    Channels,
    ModuleRule,
    OpRule,
    Value,
    register,
)
from tests.conftest import ROOT
from tests.ops import test_contract as contract

MODEL = str(ROOT / "examples" / "custom_operator" / "model.py")


@pytest.fixture
def clean() -> Iterator[None]:
    """The registries as they were, whatever a test registers."""
    assert len(OPRULES) and len(FAMILIES)
    names, families, targets = dict(OPRULES._items), dict(FAMILIES._items), dict(TARGETS)
    yield
    OPRULES._items, FAMILIES._items = names, families
    TARGETS.clear()
    TARGETS.update(targets)


@pytest.fixture
def example(clean: None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    loaded = load(MODEL)
    torch.manual_seed(0)
    return loaded.module, loaded.example_inputs


def test_the_example_is_split_and_verified(
    example: tuple[nn.Module, tuple[Tensor, ...]],
) -> None:
    model, inputs = example
    assert sum(p.numel() for p in model.parameters()) == 14_275
    result = cerewrite.convert(model, inputs, budget="params", estimator="analytic")
    (split,) = result.plan.splits
    assert split.multiplicity > 1 and result.verification.passed
    gains = [m for m in result.model.modules() if type(m).__name__ == "ChannelGain"]
    assert [len(gain.weight) for gain in gains] == [split.multiplicity * n for n in split.widths]
    load(MODEL)  # a file loaded again replaces its own rule


WHOLE_LINE = """
import json, torch, cerewrite
from waves.layers import WaveLinear, build_waves, example_inputs
torch.manual_seed(0)
model, inputs = build_waves(), example_inputs()
analysis = cerewrite.analyze(model, inputs)
plan = cerewrite.plan(analysis, budget="params")
new = cerewrite.apply(plan, model)
checks = cerewrite.verify(model, new, plan, inputs).checks
export = cerewrite.export_onnx(new, "waves.onnx", inputs)
drawn = cerewrite.analyze(model, inputs, estimator="monte-carlo", draws=300, seed=1).nu
print(json.dumps({
    "nu": analysis.nu.value, "drawn": drawn.value, "error": drawn.stderr,
    "members": plan.splits[0].multiplicity, "blocks": [layer.blocks for layer in new],
    "types": [type(layer) is WaveLinear for layer in new],
    "checks": {check.name: check.passed for check in checks},
    "spread": float(new[1].weight.square().mean()) * new[1].weight[0].numel(),
    "parity": [one.batch for one in export.parity if one.passed],
    "revert": type(cerewrite.revert(new)[1]).__name__,
}))
"""


@pytest.mark.thorough
def test_a_layer_of_its_own_is_one_file_of_another_package(tmp_path: Path) -> None:
    """Analysed, drawn, planned, rewritten, verified, exported: nothing here knows its name."""
    package, installed = tmp_path / "waves", tmp_path / "waves-1.0.dist-info"
    package.mkdir()
    installed.mkdir()
    (package / "__init__.py").touch()
    (package / "layers.py").write_text(Path(MODEL).read_text(encoding="utf-8"), encoding="utf-8")
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: waves\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[cerewrite.operators]\nwaves = waves.layers\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", WHOLE_LINE]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    m = found["members"]
    assert m > 1 and found["blocks"] == [1, m, m, m, 1] and all(found["types"])
    assert all(found["checks"].values()) and {"params", "flops", "membership"} <= set(
        found["checks"]
    )
    assert found["parity"] == [0, 1, 2, 7] and found["revert"] == "WaveLinear"
    assert found["spread"] == pytest.approx(2, rel=0.1)
    assert abs(found["nu"] - found["drawn"]) < 4 * found["error"] < 0.5 * found["nu"]
    sources = [*ROOT.glob("cerewrite/**/*.py"), *ROOT.glob("passes/**/*.py")]
    assert not any("wave_linear" in file.read_text(encoding="utf-8") for file in sources)


@pytest.mark.parametrize("name", ["channel_gain", "wave_linear"])
def test_the_examples_rules_keep_the_laws(
    name: str, example: tuple[nn.Module, tuple[Tensor, ...]]
) -> None:
    rule = FAMILIES[name]
    assert rule.cases
    for case in rule.cases:
        contract.test_what_is_kept_is_what_autograd_saves(rule, case)
        for members in (1, 3):
            if isinstance(rule, ModuleRule):
                contract.test_resized_modules_act_member_by_member(rule, case, members)
                continue
            contract.test_fan_in_is_the_weights_that_one_output_channel_hangs_on(rule, case)
            for role in ("entry", "interior", "exit"):
                contract.test_split_layers_are_their_members(rule, case, members, role)


class Joined(nn.Module):
    """A layer of its own behind a concatenation of two others."""

    def __init__(self, wave: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 16), nn.Linear(5, 16)
        self.wave, self.last = wave(32, 16), wave(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.wave(torch.cat([self.first(x), self.second(x)], 1)))


def test_a_layer_that_cannot_read_a_concatenation_keeps_its_widths(clean: None) -> None:
    wave = type(load(f"{MODEL}:build_waves").module[0])
    widths = trace(Joined(wave), torch.randn(2, 5)).widths
    reasons = {width.name: [pin.reason for pin in width.pins] for width in widths}
    assert reasons.keys() >= {"first", "second", "wave"}
    for name in ("first", "second", "wave"):
        assert any("'wave_linear' reads a concatenation" in reason for reason in reasons[name])


def test_without_its_rule_the_example_keeps_its_widths(clean: None) -> None:
    wave = type(load(f"{MODEL}:build_waves").module[0])
    del OPRULES._items["wave_linear"], TARGETS["wave_linear"]
    widths = trace(Joined(wave), torch.randn(2, 5)).widths
    assert {width.name for width in widths} == {"first", "second"}
    assert all(width.pins and width.pins[0].code == "not-member-wise" for width in widths)


@torch.library.custom_op("cerewrite_tests::squash", mutates_args=())
def squash(x: Tensor) -> Tensor:
    """A user's own kernel: x / (1 + |x|)."""
    return x / (1 + x.abs())


squash.register_fake(torch.empty_like)


def _backward(ctx: object, gradient: Tensor) -> Tensor:
    return gradient / (1 + ctx.saved_tensors[0].abs()) ** 2  # type: ignore[attr-defined]


def _keep(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])  # type: ignore[attr-defined]


squash.register_autograd(_backward, setup_context=_keep)


class Squash(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return squash(x)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 16), Squash(), nn.Linear(16, 16), Squash(), nn.Linear(16, 16), Squash(),
        nn.Linear(16, 2),
    )  # fmt: skip


def test_an_operator_of_ones_own(clean: None) -> None:
    codes = {pin.code for width in trace(network(), torch.ones(2, 5)).widths for pin in width.pins}
    assert "unknown-operator" in codes

    @register
    class SquashRule(OpRule):
        """Pointwise."""

        name, targets = "squash", frozenset({"squash"})

        def channels(self, op, inputs, widths):  # noqa: ANN001, ANN202
            return inputs[0].channels

        def moments(self, op, inputs, context):  # noqa: ANN001, ANN202
            return context.apply(squash, "squash", inputs[0])

    result = cerewrite.convert(network(), torch.randn(4, 5), budget="params", estimator="analytic")
    assert result.plan.splits and result.verification.passed


def test_two_rules_for_one_operator_are_refused(clean: None) -> None:
    class Second(OpRule):
        """A second rule for sums."""

        name, targets = "second", frozenset({"add"})

        def channels(self, op: Op, inputs: Sequence[Value], widths: object) -> Channels | None:
            return None

        def moments(self, op: Op, inputs: object, context: object) -> object:  # type: ignore[override]
            return None

    with pytest.raises(UsageError, match="'add' belongs to the rule 'add'"):
        register(Second)
