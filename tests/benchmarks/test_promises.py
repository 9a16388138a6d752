"""The table of plans' promises: what is summed, and where it goes."""

from __future__ import annotations

import torch

from benchmarks import promises
from benchmarks.kinds import make
from benchmarks.levels import part_of, placed

ROWS = [
    promises.Row("a", "", 0, "4 x (15, 15, 15, 15, 15)", 0.8, 1.0, 0.05),
    promises.Row("b", "", 0, "", 1.0, 1.0, 0.0),
    promises.Row("c", "all", 0, "2 x (3, 4)", 0.5, 0.5, 0.04),
]


def test_plans_are_summed_apart_from_networks_left_alone() -> None:
    text = promises.section(ROWS, "seed 0")
    assert "Allowed nothing, 1 plans: error 22% in the median, 22% at most, 0 beyond 30%" in text
    assert "Allowed all, 1 plans: error 0%" in text
    assert "| a | nothing | 4 x (15, ...) | 0.800 | 1.000 (0.050) | 22% |" in text
    assert "| b | nothing | left as it is |" in text
    document = placed("# A\n\n## B\n", text, promises.BEGIN, promises.END)
    assert part_of(document, promises.BEGIN, promises.END) == text
    assert placed(document, text, promises.BEGIN, promises.END) == document


def test_wider_networks_have_the_sizes_of_their_seed_times_a_factor() -> None:
    (narrow, x), (wide, y) = (make("tanh chain", 0, factor) for factor in (1, 4))
    assert torch.equal(x, y)
    widths = [[p.shape[0] for p in net.parameters()] for net in (narrow, wide)]
    assert [4 * n for n in widths[0][:-2]] == widths[1][:-2]
