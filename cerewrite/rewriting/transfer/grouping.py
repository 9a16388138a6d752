"""Which channels of the original each member takes, so that the blocks keep most of the action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Members = NDArray[np.int64]
"""Original channels of each member: ``[members, width]``."""

SWEEPS, STARTS = 6, 3


@dataclass(frozen=True, slots=True)
class Interior:
    """An interior layer's action: how much each input channel moves each output channel.

    Attributes:
        source: index of the width class it reads.
        target: index of the class it writes.
        energy: ``sum over kernel of W^2 E[x^2]``, shape ``[out, in]``, at least 0.
    """

    source: int
    target: int
    energy: Matrix


def group_channels(
    importance: Sequence[Matrix],
    interiors: Sequence[Interior],
    members: int,
    widths: Sequence[int],
    seed: int = 0,
) -> tuple[tuple[Members, ...], float]:
    """Assign channels to members, greedily, class by class, until nothing improves.

    Each class has ``members * widths[d]`` places. Where those are fewer than its channels, the
    most important are kept; where they are more, channels are used several times, in different
    members as far as possible. The objective is the share of the interiors' energy that stays
    within members, each output channel weighted by its importance.

    Args:
        importance: per class, one figure per original channel, at least 0.
        interiors: the layers between the classes.
        members: number of members, at least 1.
        widths: channels of one member, per class.
        seed: of the random starts; the best of `STARTS` is returned.

    Returns:
        Per class the original channels of each member ``[members, width]``; and the objective,
        in [0, 1] (1 without interiors).

    Example:
        >>> blocks = np.kron(np.eye(2), np.ones((2, 2)))[[0, 2, 1, 3]][:, [0, 2, 1, 3]]
        >>> found, kept = group_channels([np.ones(4)] * 2, [Interior(0, 1, blocks)], 2, (2, 2))
        >>> sorted(sorted(row) for row in found[0].tolist()), kept
        ([[0, 2], [1, 3]], 1.0)
    """
    shares = [_shares(item, importance[item.target]) for item in interiors]
    best: tuple[tuple[Members, ...], float] | None = None
    for start in range(STARTS if members > 1 and interiors else 1):
        rng = np.random.default_rng((seed, start))
        found = _search(importance, interiors, shares, members, widths, rng)
        if best is None or found[1] > best[1] + 1e-12:
            best = found
    assert best is not None
    return best


def _shares(item: Interior, importance: Matrix) -> Matrix:
    """Energies with every output's sum scaled to its importance, all of them adding up to 1."""
    sums = item.energy.sum(1, keepdims=True)
    even = np.full_like(item.energy, 1 / item.energy.shape[1])
    rows = np.divide(item.energy, sums, out=even, where=sums > 0) * importance[:, None]
    total = rows.sum()
    scaled: Matrix = rows / total if total > 0 else rows
    return scaled


def _search(
    importance: Sequence[Matrix],
    interiors: Sequence[Interior],
    shares: Sequence[Matrix],
    members: int,
    widths: Sequence[int],
    rng: np.random.Generator,
) -> tuple[tuple[Members, ...], float]:
    counts = [np.zeros((len(values), members)) for values in importance]
    found: list[Members] = []
    for d, values in enumerate(importance):
        noise = rng.random((len(values), members))
        found.append(_assign(noise, values, widths[d]))
        counts[d] = _counts(found[d], len(values))
    kept = _kept(interiors, shares, counts)
    for _ in range(SWEEPS):
        before = kept
        for d, values in enumerate(importance):
            trial = _assign(_affinity(d, interiors, shares, counts), values, widths[d])
            old = counts[d]
            counts[d] = _counts(trial, len(values))
            now = _kept(interiors, shares, counts)
            if now >= kept:
                found[d], kept = trial, now
            else:
                counts[d] = old
        if kept <= before + 1e-9:
            break
    return tuple(found), kept


def _counts(found: Members, channels: int) -> Matrix:
    """1 where a member has a channel, else 0: ``[channels, members]``."""
    present = np.zeros((channels, len(found)))
    for j, own in enumerate(found):
        present[own, j] = 1
    return present


def _affinity(
    d: int, interiors: Sequence[Interior], shares: Sequence[Matrix], counts: Sequence[Matrix]
) -> Matrix:
    """Energy that a channel of class d exchanges with each member: ``[channels, members]``."""
    total = np.zeros_like(counts[d])
    for item, share in zip(interiors, shares, strict=True):
        if item.source == d:
            total += share.T @ counts[item.target]
        if item.target == d:
            total += share @ counts[item.source]
    return total


def _kept(
    interiors: Sequence[Interior], shares: Sequence[Matrix], counts: Sequence[Matrix]
) -> float:
    """Mean over layers of the energy within members, copies of an output counted once each."""
    if not interiors:
        return 1.0
    kept = 0.0
    for item, share in zip(interiors, shares, strict=True):
        copies = counts[item.target]
        within = ((share @ counts[item.source]) * copies).sum(1)
        kept += float((within / np.maximum(copies.sum(1), 1)).sum())
    return kept / len(interiors)


def _assign(affinity: Matrix, importance: Matrix, width: int) -> Members:
    """Give every member ``width`` channels, best affinities first, within each channel's copies."""
    channels, members = affinity.shape
    whole, rest = divmod(width, channels)
    quota = _quota(importance, members, rest)
    own: list[list[int]] = [[] for _ in range(members)]
    advantage = affinity - affinity.mean(1, keepdims=True)
    for flat in np.argsort(-advantage, axis=None, kind="stable") if rest else ():
        channel, member = divmod(int(flat), members)
        if quota[channel] and len(own[member]) < rest:
            own[member].append(channel)
            quota[channel] -= 1
    order = np.argsort(-importance, kind="stable")
    for mine in own:  # copies that are left over, none twice in one member
        free = [c for c in order if c not in set(mine)]
        free.sort(key=lambda channel: -quota[channel])
        for channel in free[: rest - len(mine)]:
            mine.append(int(channel))
            quota[channel] -= 1
    everything = np.tile(np.arange(channels), whole)
    return np.array([[*everything, *sorted(mine)] for mine in own], dtype=np.int64)


def _quota(importance: Matrix, members: int, width: int) -> NDArray[np.int64]:
    """Copies of each channel: evenly, the remainder to the most important."""
    channels = len(importance)
    even, more = divmod(members * width, channels)
    quota = np.full(channels, even, dtype=np.int64)
    quota[np.argsort(-importance, kind="stable")[:more]] += 1
    return quota
