"""The ways that docs/NARROW.md compares compute the same, and the page is of what is stored."""

from __future__ import annotations

import pytest
import torch

from benchmarks import narrow


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("width", "kernel"), [(4, 3), (10, 3), (12, 1), (16, 3)])
def test_every_way_computes_the_grouped_convolution(width: int, kernel: int, last: bool) -> None:
    form = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(2, 4 * width, 6, 6).contiguous(memory_format=form)
    weight = torch.randn(4 * width, width, kernel, kernel) / (width * kernel**2) ** 0.5
    wanted = narrow.grouped(x, weight, 4)
    ways = narrow.ways(width, 4)
    assert {"grouped", "separate", "merged by 2", "patches"} <= ways.keys()
    for way in ways.values():
        found = way(x, weight, 4)
        torch.testing.assert_close(found, wanted, rtol=0, atol=4e-6)
        assert found.stride() == wanted.stride()


def test_the_page_is_of_what_was_measured() -> None:
    page = narrow.PAGE.read_text(encoding="utf-8")
    items = narrow.stored()
    assert narrow.wins(items) in page
    assert all(row in page for row in narrow.rows(items))
    assert all(row in page for row in narrow.narrow_models.rows())
