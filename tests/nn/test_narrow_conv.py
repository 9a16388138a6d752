"""Grouped convolutions by the quicker way: values, gradients, names and graphs of the stock one."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cerewrite.nn import narrow
from cerewrite.nn.narrow_conv import STOCK, _Padded, _Product, way_of

CONVS: dict[str, tuple[Callable[[], Any], tuple[int, ...], type | None]] = {
    "padded": (lambda: nn.Conv2d(15, 21, 3, groups=3), (8, 15, 12, 12), _Padded),
    "padded, strided, no bias": (
        lambda: nn.Conv2d(14, 16, 3, 2, 1, groups=2, bias=False), (32, 14, 9, 9), _Padded,
    ),
    "padded, only its output": (
        lambda: nn.Conv2d(16, 30, 3, padding=2, dilation=2, groups=2), (8, 16, 8, 8), _Padded,
    ),
    "padded, only its input": (lambda: nn.Conv2d(30, 16, (1, 3), groups=2), (8, 30, 8, 8), _Padded),
    "padded in one dimension": (lambda: nn.Conv1d(14, 26, 5, padding=2, groups=2),
                                (8, 14, 64), _Padded),
    "padded in three": (lambda: nn.Conv3d(14, 14, 3, padding=1, groups=2),
                        (8, 14, 4, 4, 4), _Padded),
    "product": (lambda: nn.Conv2d(24, 16, 1, groups=2), (3, 24, 8, 8), _Product),
    "product, no bias": (lambda: nn.Conv2d(24, 16, 1, groups=2, bias=False),
                         (3, 24, 8, 8), _Product),
    "product in one dimension": (lambda: nn.Conv1d(24, 16, 1, groups=2), (3, 24, 64), _Product),
    "whole blocks": (lambda: nn.Conv2d(32, 32, 3, groups=2), (32, 32, 8, 8), None),
    "multiples of 4, small maps": (
        lambda: nn.Conv2d(24, 24, 3, groups=2), (32, 24, 8, 8), _Padded,
    ),
    "multiples of 4, large maps": (lambda: nn.Conv2d(24, 24, 3, groups=2), (8, 24, 20, 20), None),
    "multiples of 4, much more work": (lambda: nn.Conv2d(8, 8, 3, groups=2), (32, 8, 8, 8), None),
    "too narrow": (lambda: nn.Conv2d(6, 6, 3, groups=2), (32, 6, 8, 8), None),
    "few positions": (lambda: nn.Conv2d(14, 14, 3, groups=2), (2, 14, 4, 4), None),
    "small maps": (lambda: nn.Conv2d(24, 24, 1, groups=2), (32, 24, 4, 4), None),
    "odd widths, size 1": (lambda: nn.Conv2d(14, 14, 1, groups=2), (32, 14, 8, 8), None),
    "strided, size 1": (lambda: nn.Conv2d(24, 24, 1, 2, groups=2), (32, 24, 16, 16), None),
    "reflected": (
        lambda: nn.Conv2d(14, 14, 3, padding=1, padding_mode="reflect", groups=2),
        (32, 14, 8, 8), None,
    ),
    "same": (lambda: nn.Conv2d(14, 14, 3, padding="same", groups=2), (32, 14, 8, 8), None),
}  # fmt: skip

TAKEN = [name for name, (_, _, way) in CONVS.items() if way is not None]


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this processor has, the ways are the same."""
    monkeypatch.setattr("cerewrite.nn.narrow_conv.ONEDNN", True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.parametrize("name", TAKEN)
def test_on_several_threads_nothing_is_filled_up(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, layer, x = both(name)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    way = way_of(layer, x, layer.weight, layer.bias)
    assert way is (_Product if CONVS[name][2] is _Product else None)


def both(name: str) -> tuple[Any, Any, Tensor]:
    make, shape, _ = CONVS[name]
    plain = make()
    return plain, narrow(plain), torch.randn(shape)


def close(found: Tensor, wanted: Tensor) -> None:
    scale = float(wanted.detach().abs().max())
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6 * max(scale, 1.0))


@pytest.mark.parametrize("name", CONVS)
def test_values_gradients_and_memory_formats_are_the_stock_layers(name: str) -> None:
    plain, layer, x = both(name)
    assert way_of(layer, x, layer.weight, layer.bias) is CONVS[name][2]
    inputs = [x.requires_grad_(), *plain.parameters()]
    wanted, found = plain(x), layer(x)
    close(found, wanted)
    assert found.stride() == wanted.stride()
    pull = torch.randn_like(wanted)
    pairs = zip(
        torch.autograd.grad(found, inputs, pull),
        torch.autograd.grad(wanted, inputs, pull),
        strict=True,
    )
    for left, right in pairs:
        close(left, right)
        assert left.shape == right.shape


@pytest.mark.parametrize("name", TAKEN)
def test_gradients_are_of_what_is_asked_for(name: str) -> None:
    _, layer, x = both(name)
    layer.weight.requires_grad_(False)
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None
    layer.weight.requires_grad_(True)
    given = x.detach()
    layer(given).square().sum().backward()
    assert layer.weight.grad is not None and given.grad is None


@pytest.mark.parametrize("name", TAKEN)
def test_gradients_of_gradients(name: str) -> None:
    plain, layer, x = both(name)
    x.requires_grad_()

    def twice(conv: nn.Module) -> tuple[Tensor, ...]:
        inputs = [x, *conv.parameters()]
        first = torch.autograd.grad(conv(x).sin().mean(), inputs, create_graph=True)
        penalty = torch.stack([g.square().sum() for g in first]).sum()
        return torch.autograd.grad(penalty, inputs)

    for left, right in zip(twice(layer), twice(plain), strict=True):
        close(left, right)


@pytest.mark.parametrize("name", TAKEN)
def test_backward_keeps_what_the_stock_layer_keeps(name: str) -> None:
    plain, layer, x = both(name)

    def kept(conv: nn.Module) -> int:
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            seen[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            conv(x)
        return sum(seen.values())

    bias = 0 if plain.bias is None else plain.bias.numel()
    assert kept(layer) <= kept(plain) + bias


def test_names_types_copies_and_files_are_the_stock_layers() -> None:
    plain, layer, x = both("padded")
    assert isinstance(layer, nn.Conv2d) and STOCK[type(layer)] is nn.Conv2d
    assert repr(layer) == repr(plain) and layer.state_dict().keys() == plain.state_dict().keys()
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(layer), loaded):
        assert type(other) is type(layer) and torch.equal(other(x), layer(x))
    dense = nn.Conv2d(4, 4, 3)
    assert narrow(dense) is dense and narrow(layer) is layer


@pytest.mark.parametrize("name", ["padded", "product"])
def test_everyone_else_sees_the_stock_operator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, layer, x = both(name)
    wanted = plain(x)
    scripted = torch.jit.script(layer)
    monkeypatch.setattr("cerewrite.nn.narrow_conv._Padded.apply", None)
    monkeypatch.setattr("cerewrite.nn.narrow_conv._Product.apply", None)
    with pytest.raises(TypeError):
        layer(x)

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
            return func(*args, **(kwargs or {}))

    program = torch.export.export(nn.Sequential(layer).eval(), (x,))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert len(called) == 1 and "conv" in called[0]
    values = {key: p.detach() for key, p in layer.named_parameters()}
    assert torch.equal(scripted(x), wanted)
    assert torch.equal(torch.jit.trace(layer, (x,), check_trace=False)(x), wanted)
    assert torch.equal(torch.fx.symbolic_trace(nn.Sequential(layer))(x), wanted)
    close(torch.vmap(layer)(x[:, None])[:, 0], wanted)
    close(torch.func.jvp(layer, (x,), (torch.zeros_like(x),))[0], wanted)
    torch.func.grad(lambda v: torch.func.functional_call(layer, v, (x,)).square().sum())(values)
    with Seen():
        assert torch.equal(layer(x), wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert torch.equal(layer.double()(x.double()), plain.double()(x.double()))
    layer.float()
    last = x.contiguous(memory_format=torch.channels_last)
    assert layer(last).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.thorough
def test_compiled() -> None:
    _, layer, x = both("padded")
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    close(compiled(x), layer(x))


def test_a_failing_member_stays_alone() -> None:
    """Infinite values in one member reach no other: zeros stand within members only."""
    for name in TAKEN:
        plain, layer, x = both(name)
        x[:, : x.shape[1] // layer.groups] = torch.inf
        found, wanted = layer(x), plain(x)
        own = layer.out_channels // layer.groups
        assert found[:, own:].isfinite().all() and not found[:, :own].isfinite().any()
        close(found[:, own:], wanted[:, own:])


@pytest.mark.parametrize("name", TAKEN)
def test_no_examples_and_an_example_alone(name: str) -> None:
    plain, layer, x = both(name)
    for few in (x[:0], x[0]):
        assert torch.equal(layer(few), plain(few))


def test_wrong_channels_are_refused_as_by_the_stock_layer() -> None:
    _, layer, _ = both("padded")
    with pytest.raises(RuntimeError, match="channels"):
        layer(torch.randn(32, 21, 12, 12))
