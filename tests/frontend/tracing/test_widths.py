from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from cerewrite.frontend.tracing import trace
from cerewrite.ir import TracedModel, WidthClass
from tests.models import ResidualNet, chain, plain_cnn


def width(traced: TracedModel, name: str) -> WidthClass:
    return next(w for w in traced.widths if w.name == name)


def test_classes_of_a_plain_cnn() -> None:
    traced = trace(plain_cnn(), torch.ones(2, 3, 9, 9))
    first = width(traced, "0")
    assert (first.size, first.writers, first.readers) == (8, ("0",), ("3", "5"))
    assert [(m.name, m.op, m.params) for m in first.modules] == [
        ("1", "batch_norm", 2),
        ("3", "depthwise_conv", 10),
        ("4", "prelu", 1),
    ]
    second = width(traced, "5")
    assert (second.size, second.readers) == (12, ("11",))
    assert not first.pins and not second.pins
    assert [p.code for p in width(traced, "14").pins] == ["model-output"]


def test_flatten_folds_positions_into_the_kernel() -> None:
    traced = trace(plain_cnn(), torch.ones(2, 3, 9, 9))
    layer = next(layer for layer in traced.layers if layer.name == "11")
    assert (layer.in_channels, layer.kernel, layer.fan_in) == (12, 4, 48)


def test_residual_stream_is_one_class() -> None:
    traced = trace(ResidualNet(), torch.ones(2, 3, 8, 8))
    stream = width(traced, "stem")
    assert stream.writers == ("stem", "blocks.0.conv3", "blocks.1.conv3")
    assert stream.couplings == ("add",)


@pytest.mark.parametrize(("name", "x"), [("chain", (2, 7)), ("cnn", (2, 3, 9, 9))])
def test_counts_equal_torchs(name: str, x: tuple[int, ...]) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = {"chain": lambda: chain([8, 6], bias=True), "cnn": plain_cnn}[name]()
    traced = trace(model, torch.ones(x))
    assert traced.params == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:
        model(torch.ones(x))
    assert counter.get_total_flops() == x[0] * traced.flops
    modules = dict(model.named_modules())
    for layer in traced.layers:
        assert layer.params == sum(p.numel() for p in modules[layer.name].parameters())


class Wrapped(nn.Module):
    """Two hidden widths around one function under test."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.middle = middle
        self.shift = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(self.middle(self.fc2(self.fc1(x).relu()).relu()))


def tied() -> nn.Module:
    model = chain([8, 8, 8])
    model[4].weight = model[2].weight
    return model


class Twice(nn.Module):
    """One layer called on the input, whose width is fixed, and on what it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc2, self.fc3 = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(self.fc2(self.fc2(nn.functional.pad(x, (0, 1))).relu()))


def hooked() -> nn.Module:
    model = chain([8, 8, 8])
    model[2].register_forward_hook(lambda *_: None)
    return model


def parametrised() -> nn.Module:
    model = chain([8, 8, 8])
    parametrizations.weight_norm(model[2])
    return model


class Own(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).abs()


class Named(nn.Linear):
    """A subclass that only names itself, as torchvision's Conv3DSimple does."""

    @staticmethod
    def stride() -> int:
        return 1


REFUSALS = {
    "tied": (tied, "2"),
    "shared": (Twice, "fc2"),
    "hooked": (hooked, "2"),
    "custom-module": (lambda: nn.Sequential(nn.Linear(7, 8), Own(8, 8), nn.Linear(8, 2)), "1"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_layers_that_must_not_be_swapped(code: str) -> None:
    factory, where = REFUSALS[code]
    model = factory()
    traced = trace(model, torch.ones(2, 7))
    assert where in {layer.name for layer in traced.layers}
    assert code in {item.code for item in traced.rejections if item.where == where}
    pins = [p for w in traced.widths for p in w.pins if p.where == where]
    assert code in {p.code for p in pins}
    assert all(p.reason and p.advice for p in pins)


def test_a_subclass_with_the_stock_forward_may_be_swapped() -> None:
    model = nn.Sequential(nn.Linear(7, 8), Named(8, 8), nn.ReLU(), nn.Linear(8, 2))
    assert trace(model, torch.ones(2, 7)).rejections == ()


def test_parametrised_layer_pins_its_widths() -> None:
    traced = trace(parametrised(), torch.ones(2, 7))
    assert all(w.pins for w in traced.widths if w.name in ("0", "2"))


def test_attention_weights_read_outside_their_module() -> None:
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    traced = trace(model, torch.ones(2, 3, 16))
    assert [(item.where, item.code) for item in traced.rejections] == [
        ("", "earlier-rung"),  # attention views its input by sizes that it reads off it
        ("self_attn", "custom-module"),
        ("self_attn.out_proj.weight", "used-outside-its-module"),
    ]


PINS = {
    "fixed-view": lambda x: x.view(2, 8),
    "concatenated-with-fixed": lambda x: torch.cat([x, torch.ones(2, 4)], 1)[:, :8],
    "not-member-wise": lambda x: x[:, [1, 0, 2, 3, 4, 5, 6, 7]],
    "channel-split": lambda x: torch.cat(x.tensor_split(3, 1), 1),
    "channel-shuffle": lambda x: nn.functional.channel_shuffle(x[..., None, None], 2).flatten(1),
    "pixel-shuffle": lambda x: nn.functional.pixel_shuffle(x[..., None, None], 2).flatten(1),
    "unknown-operator": lambda x: torch.cumsum(x, 1),
}


@pytest.mark.parametrize("code", PINS)
def test_operators_that_bound_a_class(code: str) -> None:
    traced = trace(Wrapped(PINS[code]), torch.ones(2, 6))
    assert not width(traced, "fc1").pins
    assert code in {pin.code for pin in width(traced, "fc2").pins}


def test_norms_without_parameters_and_functional_norms() -> None:
    plain = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 8), nn.Linear(8, 2)
    )
    assert not width(trace(plain, torch.ones(2, 6)), "0").pins
    functional = Wrapped(lambda x: nn.functional.layer_norm(x, (8,)))
    pins = width(trace(functional, torch.ones(2, 6)), "fc2").pins
    assert [pin.code for pin in pins] == ["used-outside-its-module"]


class Called(nn.Module):
    """A function of the value and of a weight of its own."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


def test_a_module_that_calls_one_norm_is_one() -> None:
    def pins(function: Callable[[Tensor, Tensor], Tensor], kind: str = "layer") -> list[str]:
        found = width(trace(Wrapped(Called(function)), torch.ones(2, 6)), "fc2")
        rules = [(m.op, m.params) for m in found.modules]
        assert found.pins or rules == [(f"called_{kind}_norm", 1)]
        return [pin.code for pin in found.pins]

    rms = nn.functional.rms_norm
    assert pins(lambda x, w: rms(x.float(), (8,), w.float(), 1e-6).to(x.dtype), "rms") == []
    norm = nn.functional.layer_norm
    assert pins(lambda x, w: norm(x.float(), (8,), w)) == []
    assert pins(lambda x, w: norm(x, w.shape, w) * 2) == ["custom-module"]
    assert pins(lambda x, w: norm(x, (8,), w.exp())) == ["custom-module"]


def test_parameter_with_one_value_per_channel_belongs_to_the_class() -> None:
    model = Wrapped(lambda x: x)
    model.middle = lambda x: x + model.shift
    found = width(trace(model, torch.ones(2, 6)), "fc2")
    assert not found.pins
    assert [(m.name, m.op, m.params) for m in found.modules] == [("shift", "free_parameter", 1)]


def test_what_is_computed_from_a_parameter_pins() -> None:
    model = Wrapped(lambda x: x)
    model.middle = lambda x: x + model.shift.cumsum(0)
    traced = trace(model, torch.ones(2, 6))
    assert [p.code for p in width(traced, "fc2").pins] == ["tied-to-fixed-width"]


@pytest.mark.parametrize(
    "free",
    [
        lambda x: x.flatten(1),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.unsqueeze(1).mean(1),
        lambda x: x * 0.5 + 1,
        lambda x: x * torch.sigmoid(x),
        nn.functional.hardswish,
        lambda x: nn.functional.dropout(x, 0.1),
        lambda x: x.unsqueeze(1).transpose(1, 2).flatten(1),
        lambda x: torch.cat([x.unsqueeze(1), x.unsqueeze(1)], 1)[:, 0],
        lambda x: torch.cat([x.unsqueeze(1)] * 4, 1).chunk(2, 1)[1].unbind(1)[0],
        lambda x: nn.functional.adaptive_max_pool1d(x.unsqueeze(-1), 1).squeeze(-1),
        lambda x: torch.clamp(x, torch.tensor(-0.5), max=torch.tensor(1.0)),
    ],
)
def test_operators_that_keep_a_class_free(free: Callable[[Tensor], Tensor]) -> None:
    assert not width(trace(Wrapped(free), torch.ones(2, 6)), "fc2").pins


def test_width_graph_draws_layers_between_classes() -> None:
    graph = trace(chain([8, 6, 4]), torch.ones(2, 7)).width_graph()
    assert [(a, b, k) for a, b, k in graph.edges(keys=True)] == [
        ("0", "2", "2"), ("2", "4", "4"), ("4", "6", "6"),
    ]  # fmt: skip
