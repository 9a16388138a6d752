"""One head of softmax attention: what it passes, how that scatters (docs/theory.md, section 33).

Heads are alike and independent given what they read, so that they play the part of units. Of one
head with queries, keys, values and a signal sent back, all Gaussian and those of different
positions independent, four energies per value matter: the forward energy of what is read out, and
the backward energies at values, queries and keys. Their averages and relative covariances are
taken over sampled heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cerewrite.kernel.units import Array, GaussianTerm

_HEADS = 16_384
_ELEMENTS = 1 << 22
"""Numbers of one kind (heads x positions x channels) that are drawn at most."""
_POSITIONS = 32
"""Positions at most, where all are read out: above that many their number hardly matters."""
_GRID = 100
"""Steps of the logarithm of the logits' variance: heads that differ by less are drawn once."""


@dataclass(frozen=True, slots=True)
class Head:
    """One head.

    Attributes:
        queries, keys: how many positions ask and answer.
        size, values: channels of a key, of a value.
        sharing: query heads that share its keys and values.
        causal: whether position p sees the first p + 1 positions only.
        token: the position that is read out; -1 for the mean over all.
    """

    queries: int
    keys: int
    size: int
    values: int
    sharing: int = 1
    causal: bool = False
    token: int = -1


@dataclass(frozen=True, slots=True)
class HeadMoments:
    """What sampled heads do.

    Attributes:
        passed: backward energies at queries and keys over that at the values, at kernels in
            proportion to mean squares, ``[2]``.
        covariance: relative covariance of one head's energies: forward, values, queries, keys.
    """

    passed: Array
    covariance: Array


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one operator of a model, in its closed form.

    Attributes:
        slots: of the noise of the four energies.
        covariance: of that noise, ``[4, 4]``.
        linear: of it, what units of the values scatter that pass a linear layer.
        terms: what layers write into values, queries and keys.
    """

    slots: tuple[int, int, int, int]
    covariance: Array
    linear: float
    terms: tuple[tuple[GaussianTerm, ...], tuple[GaussianTerm, ...], tuple[GaussianTerm, ...]]


def head_moments(head: Head, variance: float) -> HeadMoments:
    """Averages and covariances of one head's energies.

    Args:
        head: the head; of more than 32 positions that are all read out 32 are drawn.
        variance: of its logits, above 0; taken on a grid of 1 %.

    Example:
        >>> still = head_moments(Head(8, 8, 16, 16), 1e-6)
        >>> [bool(abs(16 * still.covariance[i, i] - 2) < 0.1) for i in (0, 1)]  # linear units
        [True, True]
    """
    return _moments(_drawn(head), round(_GRID * math.log(variance)))


def _drawn(head: Head) -> Head:
    if head.token >= 0:  # one query; of the keys it sees all that it may
        seen = min(head.token + 1, head.keys) if head.causal else head.keys
        return Head(1, seen, head.size, head.values, head.sharing, token=0)
    queries, keys = min(head.queries, _POSITIONS), min(head.keys, _POSITIONS)
    return Head(queries, keys, head.size, head.values, head.sharing, head.causal)


@lru_cache(maxsize=256)
def _moments(head: Head, log_variance: int) -> HeadMoments:
    sampled, passed, scatter = _energies(head, math.exp(log_variance / _GRID))
    means = sampled.mean(1)
    covariance = np.cov(sampled / np.where(means > 0, means, 1.0)[:, None])
    # of the first two the part by values and signals is known: what is drawn adds its noise only
    covariance[:2, :2] = (passed.var() + scatter * np.eye(2)) / passed.mean() ** 2
    return HeadMoments(means[2:] / passed.mean(), covariance)


def _energies(head: Head, variance: float) -> tuple[Array, Array, float]:
    """Four energies of sampled heads, per value.

    Returns:
        ``[4, heads]``, always the same samples; the first two averaged over values and signals,
        ``[heads]``; the mean of their variance over these.
    """
    generator = torch.Generator().manual_seed(0)
    most = max(head.keys, head.queries) * max(head.size, head.values) * head.sharing
    count = max(min(_HEADS, _ELEMENTS // most), 256)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    key, value = normal(head.keys, head.size), normal(head.keys, head.values)
    query = normal(head.sharing, head.queries, head.size)
    signal = normal(head.sharing, head.values)
    # A = softmax(q k' / sqrt(d)) with logits of the given variance, [heads, sharing, queries, keys]
    step = (variance / head.size) ** 0.5
    logits = step * (query @ key.mT[:, None])
    if head.causal:
        hidden = torch.ones(head.queries, head.keys, dtype=torch.bool).triu(1)
        logits = logits.masked_fill(hidden, -math.inf)
    weights = logits.softmax(-1)
    # u: what the read-out takes of each position, all queries alike; given u, the forward energy
    # is a quadratic form of Gaussian values, the backward one the same form of signals
    taken = weights.mean(2)
    overlaps = taken @ taken.mT
    passed = overlaps.diagonal(dim1=1, dim2=2).mean(1).double().numpy()
    scatter = 2 * float(overlaps.square().sum((1, 2)).mean()) / (head.sharing**2 * head.values)
    # d (read-out) / d logits = A (w - A w) of every query that is read, w = values . signal
    sent = (signal @ value.mT)[:, :, None]
    slopes = weights * (sent - (weights * sent).sum(-1, keepdim=True)) / head.queries
    scale = step / (head.sharing * head.values) ** 0.5
    at_queries = (scale * (slopes @ key[:, None])).square().sum((1, 2, 3)).double().numpy()
    at_keys = (scale * (slopes.mT @ query).sum(1)).square().sum((1, 2)).double().numpy()
    per_value = head.sharing * head.values
    forward = (taken @ value).square().sum((1, 2)).double().numpy() / per_value
    at_values = (taken.mT @ signal).square().sum((1, 2)).double().numpy() / per_value
    return np.stack([forward, at_values, at_queries, at_keys]), passed, scatter
