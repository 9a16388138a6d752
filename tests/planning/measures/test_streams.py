"""The closed form of regions with a residual stream, against Monte-Carlo of narrow members."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from tests.planning.measures.composing import region_nu


class Branch(nn.Module):
    """``x + W2 relu(W1 x)``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(channels, width, bias=False)
        self.down = nn.Linear(width, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


class Residual(nn.Module):
    """Stem, branches, read-out."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(6, channels, bias=False)
        self.blocks = nn.Sequential(*(Branch(channels, width) for _ in range(3)))
        self.head = nn.Linear(channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).relu()))


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "width"), [(48, 48), (24, 24), (16, 40)])
def test_a_network_that_is_split_whole(channels: int, width: int) -> None:
    """One member's nu, from the wide network's sites; m have 1/m of it (docs/theory.md, eq. 5)."""
    torch.manual_seed(0)
    x = torch.ones(2, 6)
    wide = cerewrite.analyze(Residual(48, 48), x, scope="network", gain="he", estimator="analytic")
    (region,) = (item.region for item in wide.regions)
    widths = [channels if name == "stem" else width for name in region.classes]
    truth = cerewrite.analyze(
        Residual(channels, width), x, estimator="monte-carlo", draws=8000, gain="he"
    ).nu
    assert truth.stderr is not None and 4 * truth.stderr < 0.25 * truth.value
    closed = region_nu(region.sites, 1, widths)
    assert abs(closed - truth.value) < 4 * truth.stderr + 0.03 * truth.value
