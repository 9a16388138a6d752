from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cerewrite.errors import UsageError
from cerewrite.nn import BlockDiagonalLinear, ChannelReorder
from cerewrite.nn.channel_reorder import ConcatConv1d, ConcatConv3d, ConcatLinear


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 4))
def test_members_are_side_by_side(widths: list[int], members: int) -> None:
    parts = [torch.randn(2, members, width, 3) for width in widths]
    reorder = ChannelReorder([members * width for width in widths], members)
    whole = torch.cat([part.flatten(1, 2) for part in parts], 1)
    assert torch.equal(reorder(whole), torch.cat(parts, 2).flatten(1, 2))


def test_readers_equal_a_plain_layer_behind_a_reorder() -> None:
    torch.manual_seed(0)
    for layer, plain, x in (
        (ConcatConv1d(6, 4, 2, groups=2, parts=(4, 2)), nn.Conv1d, torch.randn(3, 6, 5)),
        (ConcatConv3d(6, 4, 1, groups=2, parts=(4, 2)), nn.Conv3d, torch.randn(3, 6, 2, 2, 2)),
        (ConcatLinear(6, 4, 2, parts=(4, 2)), BlockDiagonalLinear, torch.randn(3, 6)),
    ):
        assert torch.equal(layer(x), plain.forward(layer, layer.reorder(x)))
        assert "reorder.order" not in layer.state_dict()


def test_parts_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="do not divide into 2 members"):
        ChannelReorder((4, 3), 2)
