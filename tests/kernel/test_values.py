"""Kinds of units: joined, cut to fit, and left out where they are next to nothing."""

from __future__ import annotations

import pytest

from cerewrite.kernel.integrals import Sampler
from cerewrite.kernel.values import Moments, Part, add, concatenate, gaussian_value, scalar


def value(square: float) -> Moments:
    return gaussian_value(scalar(square), scalar(0.0))


def square(x: Moments) -> float:
    sampler = Sampler(256)
    return sum(p.weight * sampler.sense(p.unit).square for p in x.parts)


def test_sums_of_concatenations_meet_part_by_part() -> None:
    first = concatenate([(1, value(1.0)), (3, value(2.0))])
    second = concatenate([(3, value(4.0)), (1, value(8.0))])
    joined = add(first, second)
    assert [p.weight for p in joined.parts] == pytest.approx([0.25, 0.5, 0.25])
    assert square(joined) == pytest.approx(0.25 * 5 + 0.5 * 6 + 0.25 * 10, rel=1e-3)


def test_tokens_cut_off_and_put_back_make_no_parts_without_end() -> None:
    x = value(1.0)
    for _ in range(40):
        x = concatenate([(1, x), (64, value(1.0))])
        x = add(x, concatenate([(1, x), (64, value(1.0))]))
    assert len(x.parts) < 12
    assert sum(p.weight for p in x.parts) == pytest.approx(1.0)
    assert square(x) == pytest.approx(2.0, rel=0.05)


def test_neighbours_of_one_kind_are_one_part() -> None:
    x = value(3.0)
    assert len(concatenate([(1, x), (2, x)]).parts) == 1
    assert concatenate([(1, x), (2, value(1.0)), (1, x)]).parts[0] == Part(x.parts[0].unit, 0.25)


def test_more_leaves_than_points_are_no_singular_matrix() -> None:
    sampler = Sampler(16)
    x = value(1.0)
    for _ in range(40):
        x = add(x, value(1.0))
    assert sampler.sense(x.parts[0].unit).square == pytest.approx(41.0, rel=0.02)
