from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerewrite.rewriting.transfer import Interior, group_channels


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12)), min_size=2, max_size=3),
    st.integers(0, 5),
)
def test_every_place_is_filled_and_copies_are_even(
    members: int, sizes: list[tuple[int, int]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    channels, widths = [c for c, _ in sizes], tuple(w for _, w in sizes)
    importance = [rng.random(c) for c in channels]
    interiors = [
        Interior(d, d + 1, rng.random((channels[d + 1], channels[d])))
        for d in range(len(sizes) - 1)
    ]
    found, kept = group_channels(importance, interiors, members, widths, seed)
    assert 0 <= kept <= 1 + 1e-9
    for own, count, width, values in zip(found, channels, widths, importance, strict=True):
        assert own.shape == (members, width)
        assert own.min() >= 0 and own.max() < count
        for row in own:  # a channel is in one member as often as it must be, or once more
            copies = np.bincount(row, minlength=count)
            assert copies.max() <= -(-width // count) and copies.min() >= width // count
        if width <= count and members * width <= count:
            used = np.unique(own)
            assert len(used) == own.size
            assert set(used) == set(np.argsort(-values, kind="stable")[: own.size])
    again, _ = group_channels(importance, interiors, members, widths, seed)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("blocks", [2, 4])
def test_hidden_blocks_are_found(blocks: int) -> None:
    """A shuffled block-diagonal layer keeps all of its energy; an even one, 1 / members."""
    rng = np.random.default_rng(0)
    size = 6 * blocks
    order = [rng.permutation(size) for _ in range(3)]
    hidden = np.kron(np.eye(blocks), np.ones((6, 6)))
    layers = [Interior(d, d + 1, hidden[order[d + 1]][:, order[d]]) for d in range(2)]
    flat = [np.ones(size)] * 3
    assert group_channels(flat, layers, blocks, (6,) * 3)[1] == pytest.approx(1)
    even = [Interior(0, 1, np.ones((size, size)))]
    assert group_channels(flat[:2], even, blocks, (6, 6))[1] == pytest.approx(1 / blocks)
