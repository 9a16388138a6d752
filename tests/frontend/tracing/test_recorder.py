from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cerewrite.frontend.tracing import trace
from cerewrite.frontend.tracing.indexing import index, is_basic
from cerewrite.frontend.tracing.recorder_rung import recorded_ops
from cerewrite.frontend.tracing.widths import build_widths
from cerewrite.ir import Op, TracedModel


class Around(nn.Module):
    """Three layers around one function under test."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(self.middle(self.fc2(self.fc1(x).relu())))


def record(model: nn.Module, x: Tensor) -> list[Op]:
    return recorded_ops(model.eval(), (x,), {})


def targets(middle: Callable[[Tensor], Tensor]) -> list[str]:
    """What the function under test calls."""
    ops = record(Around(middle), torch.ones(2, 6))
    names = [op.target for op in ops if op.target not in ("parameter", "input", "constant")]
    assert names[:3] == ["linear", "relu", "linear"] and names[-2:] == ["linear", "output"]
    return names[3:-2]


CALLS: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "functions are entered": (lambda x: functional.gelu(functional.relu(x)), ["relu", "gelu"]),
    "operators": (lambda x: (2 - x) / 3 + x * x, ["rsub", "div", "mul", "add"]),
    "in place": (lambda x: x.relu_().add_(1), ["relu", "add"]),
    "dropout does nothing": (lambda x: functional.dropout(x, 0.5, training=False), []),
    "slices": (lambda x: x[:, None, ..., :8].squeeze(1), ["unsqueeze", "slice", "squeeze"]),
    "several results": (lambda x: x.chunk(2, 1)[0].repeat(1, 2),
                        ["chunk", "getitem", "getitem", "repeat"]),
    "python methods": (lambda x: x.unflatten(1, (2, 4)).flatten(1), ["unflatten", "flatten"]),
}  # fmt: skip


def test_a_plain_attribute_keeps_its_values() -> None:
    shift = torch.arange(8.0)
    ops = record(Around(lambda x: x + shift), torch.ones(2, 6))
    (held,) = (op.args[0].value for op in ops if op.target == "constant")
    assert type(held) is Tensor and torch.equal(held, shift)


@pytest.mark.parametrize("name", CALLS)
def test_operators_are_named_as_on_the_other_rungs(name: str) -> None:
    middle, expected = CALLS[name]
    assert targets(middle) == expected


def test_pointwise_functions_can_be_called_again() -> None:
    ops = record(Around(lambda x: functional.leaky_relu(x, 0.3)), torch.ones(2, 6))
    (op,) = [op for op in ops if op.target == "leaky_relu"]
    assert op.function is not None
    x = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    assert torch.equal(op.function(x), functional.leaky_relu(x, 0.3))
    assert x[0] == -1


def test_handwritten_functions_are_fused() -> None:
    ops = record(Around(lambda x: x * torch.sigmoid(x)), torch.ones(2, 6))
    (op,) = [op for op in ops if op.target == "mul"]
    x = torch.randn(5, dtype=torch.float64)
    assert op.function is not None and len(op.inputs) == 1
    assert torch.allclose(op.function(x), functional.silu(x))


def through_a_view(x: Tensor) -> Tensor:
    x[:, :4].mul_(2)
    return x


def assigned(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, ::2] = x[:, ::2]
    return out


@pytest.mark.parametrize("middle", [through_a_view, assigned])
def test_writes_through_views_bound_the_width(middle: Callable[[Tensor], Tensor]) -> None:
    model = Around(middle)
    ops = record(model, torch.ones(2, 6))
    traced = build_widths(ops, model, frontend="recorder", batch=2, fingerprint="")
    assert next(w for w in traced.widths if w.name == "fc2").pins


class Outer(nn.Module):
    """Looks at values between two runs of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 6))
        self.left, self.right = nn.Linear(6, 4), nn.Linear(6, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        z = self.left(y) if float(y.sum()) > 1e9 else self.right(y)
        return self.head(z)


def test_a_look_at_values_keeps_the_widths_that_other_paths_may_touch() -> None:
    traced = trace(Outer(), torch.ones(2, 6))
    assert traced.frontend == "recorder"
    codes = {w.name: [p.code for p in w.pins] for w in traced.widths}
    assert codes["body.0"] == codes["body.2"] == []
    assert "data-dependent" in codes["body.3"]
    assert "data-dependent" in codes["right"]
    pin = next(p for w in traced.widths for p in w.pins if p.code == "data-dependent")
    assert "float" in pin.reason and pin.advice


def test_a_look_at_a_constant_is_none() -> None:
    class Constant(Outer):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("switch", torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x)
            return self.head(self.left(y) if float(self.switch) > 0 else self.right(y))

    traced = trace(Constant(), torch.ones(2, 6))
    assert not [p for w in traced.widths for p in w.pins if p.code == "data-dependent"]


@dataclass
class Output:
    logits: Tensor
    hidden: dict[str, Tensor]


class Structured(Around):
    def forward(self, x: Tensor) -> Output:  # type: ignore[override]
        hidden = self.fc1(x).relu()
        return Output(self.fc3(self.fc2(hidden)), {"hidden": hidden})


def test_outputs_in_data_classes_keep_their_widths() -> None:
    traced = trace(Structured(torch.relu), torch.ones(2, 6))
    assert "model-output" in pins(traced, "fc1") and "model-output" in pins(traced, "fc3")


def pins(traced: TracedModel, name: str) -> list[str]:
    return [p.code for w in traced.widths for p in w.pins if w.name == name]


def test_modules_and_calls_are_named() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(nn.Linear(6, 6), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.a(self.a(x)) + 1

    ops = record(Nested(), torch.ones(2, 6))
    found = [
        (op.target, op.module, op.call) for op in ops if op.module and op.target != "parameter"
    ]
    assert found == [("linear", "a.0", 0), ("relu", "a.1", 0), ("linear", "a.0", 1),
                     ("relu", "a.1", 1)]  # fmt: skip


@pytest.mark.parametrize(
    "key", [0, slice(1, 3), (..., 0), (None, slice(None), 1), (slice(None, None, 2), ..., None)]
)
def test_indexing(key: object) -> None:
    x = torch.arange(24).view(3, 4, 2)
    assert is_basic(key)
    assert torch.equal(index(x, key), x[key])
    assert not is_basic([0]) and not is_basic(True) and not is_basic(torch.tensor(0))


class Remembers(nn.Module):
    """Keeps what it saw last as plain attributes, one of them new."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.last: Tensor | None = None
        self.calls = 0
        self.seen: list[Tensor] = []
        self.levels = [torch.ones(1)]
        self.named = {"first": torch.ones(1)}

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.newest = self.layer(x)
        self.calls += 1
        self.seen.append(self.last)
        self.levels = [self.last]
        self.named["first"] = self.last
        return self.newest.relu()


@pytest.mark.parametrize("see", [recorded_ops, lambda model, args, kwargs: trace(model, args)])
def test_attributes_that_a_forward_sets_are_put_back(see: Callable[..., Any]) -> None:
    model = Remembers()
    levels, named, first = model.levels, model.named, model.named["first"]
    see(model, (torch.randn(2, 4),), {})
    assert model.last is None and model.calls == 0 and model.seen == []
    assert "newest" not in vars(model)
    assert model.levels is levels and type(levels[0]) is Tensor
    assert model.named is named and named["first"] is first
