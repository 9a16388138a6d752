from __future__ import annotations

from itertools import combinations

from cerewrite.analysis import kept


def test_an_operator_has_one_way_of_keeping() -> None:
    """Those in `kept.IN_PLACE` and `kept.TWICE` are exceptions to one of these."""
    ways = (kept.VIEWS, kept.NOTHING, kept.DROPOUT, kept.INPUTS, kept.ENDS)
    assert all(not first & second for first, second in combinations(ways, 2))
    assert not kept.IN_PLACE & kept.TWICE
