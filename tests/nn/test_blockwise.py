"""In place and of stock operators: the same product, forward, backward and under transforms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cerewrite.nn import BlockDiagonalLinear, blockwise

SIZES = (5, 3, 4, 2)
"""Rows, members, n_in, n_out."""


@pytest.fixture(params=["in place", "convolved", "stock operators"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(blockwise, "_pixels", lambda *_: int(request.param == "convolved"))
    if request.param == "stock operators":
        monkeypatch.setattr(blockwise, "eager", lambda *tensors: False)
    yield request.param


def operands(rows: int, members: int, n_in: int, n_out: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, members * n_in), (members, n_in, n_out), (members * n_out,))
    return tuple(  # type: ignore[return-value]
        torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes
    )


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("sizes", [SIZES, (0, 2, 3, 3), (1, 1, 2, 3), (4, 2, 1, 1)])
def test_equals_block_diag(sizes: tuple[int, int, int, int]) -> None:
    x, weight, bias = operands(*sizes)
    dense = x @ torch.block_diag(*weight)
    for given, wanted in ((None, dense), (bias, dense + bias)):
        found = blockwise.block_linear(x, weight, given)
        torch.testing.assert_close(found, wanted)
        inputs = [x, weight] if given is None else [x, weight, bias]
        pull = torch.randn(wanted.shape, dtype=wanted.dtype)
        pairs = zip(
            torch.autograd.grad(found, inputs, pull),
            torch.autograd.grad(wanted, inputs, pull, retain_graph=True),
            strict=True,
        )
        for left, right in pairs:
            torch.testing.assert_close(left, right)


@pytest.mark.skipif(not blockwise.ONEDNN, reason="PyTorch without oneDNN")
@pytest.mark.parametrize("rows", [64, 128, 256, 500, 512])
@pytest.mark.parametrize("turned", [False, True])
def test_what_onednn_convolves(rows: int, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, forward and backward, rows and gradients as they come, weights too."""
    exact = operands(rows, 3, 32, 40)
    x, weight, bias = (t.detach().float() for t in exact)
    pull = torch.randn(rows, 120)
    if turned:
        x, pull = x.T.contiguous().T, pull.T.contiguous().T
        weight = weight.transpose(1, 2).contiguous().transpose(1, 2)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    calls: list[torch.Size] = []

    def counted(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        calls.append(images.shape)
        return convolved(images, weight, bias)

    convolved = blockwise._convolved
    monkeypatch.setattr(blockwise, "_convolved", counted)
    found = blockwise.block_linear(x, weight, bias)
    wanted = exact[0] @ torch.block_diag(*exact[1]) + exact[2]
    gradients = torch.autograd.grad(found, inputs, pull)
    assert [shape[0] * shape[2] for shape in calls] == [rows, rows]
    assert found.is_contiguous() and gradients[1].is_contiguous()
    pairs = zip(
        (found, *gradients),
        (wanted, *torch.autograd.grad(wanted, exact, pull.double())),
        strict=True,
    )
    for left, right in pairs:
        torch.testing.assert_close(left, right.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "n_in", "n_out", "dtype", "pixels"),
    [
        (512, 32, 64, torch.float32, 16),
        (256, 32, 32, torch.float32, 16),
        (128, 32, 32, torch.float32, 8),
        (500, 64, 32, torch.float32, 4),
        (60, 32, 32, torch.float32, 0),
        (502, 32, 32, torch.float32, 0),
        (0, 32, 32, torch.float32, 0),
        (512, 16, 64, torch.float32, 0),
        (512, 32, 32, torch.float64, 0),
    ],
)
def test_who_multiplies(
    rows: int,
    n_in: int,
    n_out: int,
    dtype: torch.dtype,
    pixels: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.empty(rows, 2 * n_in, dtype=dtype)
    monkeypatch.setattr(blockwise, "ONEDNN", True)
    assert blockwise._pixels(x, n_in, n_out) == pixels
    monkeypatch.setattr(blockwise, "ONEDNN", False)
    assert blockwise._pixels(x, n_in, n_out) == 0


@pytest.mark.usefixtures("way")
def test_the_output_may_be_changed_in_place() -> None:
    x, weight, bias = operands(*SIZES)
    found = blockwise.block_linear(x, weight, bias)
    found[:, 0] = 2
    wanted = (x @ torch.block_diag(*weight) + bias).index_fill(1, torch.tensor(0), 2)
    inputs = (x, weight, bias)
    pairs = zip(
        torch.autograd.grad(found.square_().sum(), inputs),
        torch.autograd.grad(wanted.square().sum(), inputs),
        strict=True,
    )
    for left, right in pairs:
        torch.testing.assert_close(left, right)


@pytest.mark.usefixtures("way")
def test_gradients_of_gradients() -> None:
    x, weight, bias = operands(6, *SIZES[1:])
    inputs = (x.detach().view(3, 2, -1).requires_grad_(), weight, bias)
    assert torch.autograd.gradcheck(blockwise.block_linear, inputs)
    assert torch.autograd.gradgradcheck(blockwise.block_linear, inputs)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    x, weight, bias = operands(*SIZES)
    weight.requires_grad_(False)
    blockwise.block_linear(x, weight, bias).sum().backward()
    assert x.grad is not None and bias.grad is not None and weight.grad is None


def net() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [BlockDiagonalLinear(12, 12, 3).double() for _ in range(3)]
    return nn.Sequential(blocks[0], nn.ReLU(inplace=True), blocks[1], nn.Tanh(), blocks[2])


class Copies(TorchDispatchMode):
    """Counts the operators that copy a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        self.count += func.overloadpacket in (
            torch.ops.aten.clone,
            torch.ops.aten.copy_,
            torch.ops.aten._to_copy,
        )
        return func(*args, **(kwargs or {}))


def copies() -> tuple[int, int]:
    """Forward and backward."""
    model, x = net(), torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    with Copies() as forward:
        out = model(x)
    with Copies() as backward:
        torch.autograd.grad(out, [x, *model.parameters()], torch.ones_like(out))
    return forward.count, backward.count


def test_a_run_of_layers_turns_nothing_but_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    assert copies() == (0, 3)
    monkeypatch.setattr(blockwise, "eager", lambda *tensors: False)
    assert copies()[0] >= 3


def test_transforms_and_modes_take_the_stock_operators() -> None:
    model, x = net(), torch.randn(4, 12, dtype=torch.float64)
    wanted = model(x)
    torch.testing.assert_close(torch.vmap(model)(x[:, None])[:, 0], wanted)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        result: Tensor = torch.func.functional_call(model, values, (x,)).square().sum()
        return result

    wanted.square().sum().backward()
    for name, gradient in torch.func.grad(loss)(parameters).items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad)
    tangent = torch.randn_like(x)
    _, pushed = torch.func.jvp(model, (x,), (tangent,))
    small = 1e-6
    torch.testing.assert_close(
        pushed, (model(x + small * tangent) - wanted) / small, rtol=1e-3, atol=1e-4
    )

    seen: list[str] = []

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
            seen.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    with Seen():
        torch.testing.assert_close(model(x), wanted)
    assert seen.count("baddbmm") == 3


def test_gradients_pass_a_compiled_layer() -> None:
    layer, x = net()[0], torch.randn(4, 12, dtype=torch.float64)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    compiled(x).sum().backward()
    found, layer.weight.grad = layer.weight.grad, None
    layer(x).sum().backward()
    torch.testing.assert_close(found, layer.weight.grad)
