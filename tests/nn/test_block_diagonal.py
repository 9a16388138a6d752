from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cerewrite.errors import UsageError
from cerewrite.nn import BlockDiagonalLinear


def dense(layer: BlockDiagonalLinear, x: Tensor) -> Tensor:
    return nn.functional.linear(x, torch.block_diag(*layer.weight).T, layer.bias)


@settings(max_examples=30)
@given(
    members=st.integers(1, 5),
    n_in=st.integers(1, 4),
    n_out=st.integers(1, 4),
    lead=st.lists(st.integers(0, 3), max_size=3),
    bias=st.booleans(),
)
def test_equals_a_dense_layer_with_a_block_diagonal_weight(
    members: int, n_in: int, n_out: int, lead: list[int], bias: bool
) -> None:
    layer = BlockDiagonalLinear(members * n_in, members * n_out, members, bias).double()
    x = torch.randn(*lead, members * n_in, dtype=torch.float64)
    assert layer(x).shape == (*lead, members * n_out)
    torch.testing.assert_close(layer(x), dense(layer, x))


def test_layout_and_default_initialisation() -> None:
    torch.manual_seed(0)
    layer = BlockDiagonalLinear(600, 300, members=3)
    assert layer.weight.shape == (3, 200, 100)
    assert layer.bias is not None and layer.bias.shape == (300,)
    bound = 200**-0.5
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_gradients() -> None:
    layer = BlockDiagonalLinear(6, 4, members=2).double()
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("sizes", [(5, 4, 2), (4, 5, 2), (4, 4, 0)])
def test_features_that_do_not_divide_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="does not divide"):
        BlockDiagonalLinear(*sizes)


def test_wrong_input_width_is_refused_even_if_a_multiple() -> None:
    with pytest.raises(RuntimeError):
        BlockDiagonalLinear(4, 4, 2)(torch.ones(2, 8))


def test_state_dict_deepcopy_and_repr() -> None:
    layer = BlockDiagonalLinear(4, 6, members=2)
    other = BlockDiagonalLinear(4, 6, members=2)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 4)
    assert torch.equal(layer(x), other(x))
    assert torch.equal(layer(x), copy.deepcopy(layer)(x))
    assert repr(layer) == (
        "BlockDiagonalLinear(in_features=4, out_features=6, members=2, bias=True)"
    )


def test_autocast() -> None:
    layer = BlockDiagonalLinear(8, 8, members=2)
    x = torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05)


@pytest.mark.thorough
def test_compile_once_for_every_batch_size() -> None:
    layer = BlockDiagonalLinear(6, 4, members=2)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True, fullgraph=True)
    for batch in (2, 3, 7):
        x = torch.randn(batch, 6)
        torch.testing.assert_close(compiled(x), layer(x))


def test_export_with_a_dynamic_batch() -> None:
    layer = BlockDiagonalLinear(6, 4, members=2).eval()
    shapes = {"input": {0: torch.export.Dim("batch")}}
    program = torch.export.export(layer, (torch.randn(2, 6),), dynamic_shapes=shapes).module()
    for batch in (2, 5):
        x = torch.randn(batch, 6)
        torch.testing.assert_close(program(x), layer(x))


def test_meta_construction_draws_nothing() -> None:
    state = torch.get_rng_state()
    layer = BlockDiagonalLinear(4, 4, 2, device="meta", dtype=torch.float16)
    assert layer.weight.is_meta and layer.weight.dtype == torch.float16
    assert torch.equal(state, torch.get_rng_state())
