"""Users' own operators and modules: a rule in a few lines, taken up without any other edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import UsageError
from cerewrite.frontend.loading import load
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Op
from cerewrite.ops.base import OPRULES, TARGETS, Channels, OpRule, Value, register
from tests.conftest import ROOT

MODEL = str(ROOT / "examples" / "custom_operator" / "model.py")


@pytest.fixture
def clean() -> Iterator[None]:
    """The registries as they were, whatever a test registers."""
    assert len(OPRULES)
    names, targets = dict(OPRULES._items), dict(TARGETS)
    yield
    OPRULES._items = names
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


def test_without_its_rule_the_example_is_refused(
    example: tuple[nn.Module, tuple[Tensor, ...]],
) -> None:
    model, inputs = example
    del OPRULES._items["channel_gain"], TARGETS["channel_gain"]
    pins = {pin.code for width in trace(model, inputs).widths for pin in width.pins}
    assert "tied-to-fixed-width" in pins


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
