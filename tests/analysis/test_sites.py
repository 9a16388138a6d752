"""Where finite width enters a region, and what norms there add."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite


class Block(nn.Module):
    """A residual block in front of which a norm stands, or none."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(6, 16), norm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.last, self.head = norm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + self.down(self.up(self.norm(x)).relu())
        out: Tensor = self.head(self.last(x))
        return out


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, nn.Identity])
def test_the_share_in_front_of_norms_stands_once_at_their_class(norm: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = Block(norm), torch.randn(4, 6)
    analysis = cerewrite.analyze(model, x, estimator="analytic", scope="network")
    (region,) = [entry.region for entry in analysis.regions]
    marked = [site for site in region.sites if site.normed]
    if norm is nn.Identity:
        assert not marked
        return
    (site,) = marked
    writers = [y for y in region.sites if y.width == site.width]
    assert [y.layer for y in writers] == ["enter", "down"]
    assert site.normed == pytest.approx(sum(y.backward_share for y in writers))
    assert 0.5 < site.normed < 1
