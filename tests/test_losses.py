"""The variance constancy term and the multiverse head hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cerewrite.errors import UsageError
from cerewrite.losses import VarianceConstancy, variance_constancy
from cerewrite.nn import MultiverseHead


def test_the_term_is_the_published_one_per_unit() -> None:
    values = torch.randn(12, 3, 2, 2, dtype=torch.float64)
    found = variance_constancy(values, torch.tensor([0.5, 1.0, 2.0]).double(), 5)
    plain = values.numpy()
    for unit, beta in enumerate((0.5, 1.0, 2.0)):
        first, last = (plain[rows, unit].var(0, ddof=1) for rows in (slice(5), slice(7, 12)))
        assert float(found[unit]) == pytest.approx(np.mean((1 - first / (last + beta)) ** 2))


def test_the_module_sums_layers_and_trains() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(),
        nn.Linear(6, 2),
    )  # fmt: skip
    constancy = VarianceConstancy(model, sample=4)
    x = torch.randn(16, 1, 4, 4)
    model(x)
    with torch.no_grad():
        conv = model[0](x)
        dense = model[3](torch.relu(conv).flatten(1))
    expected = sum(float(variance_constancy(v, 1.0, 4).mean()) for v in (conv, dense))
    model(x)
    assert float(constancy().detach()) == pytest.approx(expected, rel=1e-5)
    optimiser = torch.optim.SGD([*model.parameters(), *constancy.parameters()], 0.05)
    seen = []
    for _ in range(60):
        optimiser.zero_grad()
        model(x)
        loss = constancy()
        loss.backward()
        optimiser.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.7 * seen[0]
    constancy.remove()
    model(x)
    with pytest.raises(UsageError, match="was not run"):
        constancy()


def test_what_the_term_refuses() -> None:
    with pytest.raises(UsageError, match="from a batch of 9"):
        variance_constancy(torch.randn(9, 2))
    with pytest.raises(UsageError, match="no hidden"):
        VarianceConstancy(nn.Linear(2, 2))
    for options in ({"sample": 1}, {"beta": 0.0}):
        with pytest.raises(UsageError):
            VarianceConstancy(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), **options)


def test_heads_are_those_of_a_qr_decomposition() -> None:
    torch.manual_seed(0)
    head = MultiverseHead(6, 4, heads=3).double()
    stored, used = head.weight.detach(), head.weights().detach()
    for c in range(4):
        q, r = torch.linalg.qr(stored[:, c].T)
        for h in range(3):
            direction = q[:, h] * r[h, h].sign()
            assert torch.allclose(used[h, c], direction * stored[h, c].norm())
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = torch.stack([x @ w.T for w in used])
    assert torch.allclose(head.each(x), expected)
    assert torch.allclose(head(x), expected.mean(0))


def test_heads_stay_orthogonal_in_training() -> None:
    torch.manual_seed(0)
    head = MultiverseHead(6, 3, heads=2)
    optimiser = torch.optim.SGD(head.parameters(), 0.5)
    x, y = torch.randn(32, 6), torch.randint(3, (32,))
    first = None
    for _ in range(30):
        optimiser.zero_grad()
        loss = sum(nn.functional.cross_entropy(z, y) for z in head.each(x))
        loss.backward()
        optimiser.step()
        first = first if first is not None else float(loss.detach())
    assert float(loss.detach()) < first
    with torch.no_grad():
        one, two = head.weights()
        assert float((one * two).sum(1).abs().max()) < 1e-5


@pytest.mark.parametrize("heads", [0, 7])
def test_more_heads_than_features(heads: int) -> None:
    with pytest.raises(UsageError, match="heads on 6 features"):
        MultiverseHead(6, 2, heads=heads)
