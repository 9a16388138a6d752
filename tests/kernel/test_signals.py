"""Signals sent back to a unit: their moments do not depend on how points are taken."""

from __future__ import annotations

import numpy as np
import pytest

from cerewrite.kernel import signals
from cerewrite.kernel.integrals import Sampler
from cerewrite.kernel.reading import Read
from cerewrite.kernel.units import GaussianTerm, make_unit
from cerewrite.kernel.values import scalar


def term(kernel: float) -> GaussianTerm:
    return GaussianTerm("layer", 0.0, 1.0, 8.0, 1.0, scalar(1.0), scalar(kernel))


def found(elements: int, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """A stream ``a`` and a gate ``a b``, each with one reader: means, then variances."""
    monkeypatch.setattr(signals, "_ELEMENTS", elements)
    one, two = term(1.5), term(0.5)
    first = make_unit("term", term=one)
    gate = make_unit("multiply", first, make_unit("term", term=two))
    reads = [Read(first, 1.5, 0, 1, 2, -1), Read(gate, 2.0, 3, 4, 5, -1)]
    sampler = Sampler(256)
    space = sampler.space(gate.terms)
    tangents = [sampler.values(read.unit, space)[1] for read in reads]
    shares = np.array([0.1, 0.3, 0.2, 0.1, 0.5, 0.4])
    means, extra, downs = signals.backward(reads, [one, two], tangents, space, shares)
    assert downs[one] == pytest.approx(0.3 + 0.5 * 1.5 / 2.0, rel=1e-6)
    assert downs[two] == pytest.approx(0.5 * 0.5 / 2.0, rel=1e-6)
    return np.array(means), extra


def test_pieces_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, pieces = (found(size, monkeypatch) for size in (1 << 23, 4096))
    assert pieces[0] == pytest.approx(whole[0], rel=1e-12)
    assert pieces[1] == pytest.approx(whole[1], rel=1e-12)


def test_variances_are_those_of_drawn_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    means, extra = found(1 << 23, monkeypatch)
    # the stream's own energy is T r^2 whatever a is: relative variance 2 of a squared Gaussian
    assert means[0] == pytest.approx(np.ones_like(means[0]))
    assert extra[0] == pytest.approx(2.0, rel=1e-9)
    # the gate's is r^2 (1.5 b^2 + 0.5 a^2), over its mean 2: 2 E[(...)^2] / 4
    assert extra[1] == pytest.approx(2 * (3 * 1.5**2 + 3 * 0.5**2 + 2 * 0.75) / 4, rel=1e-4)
    # of both together: 4 E[(1.5 b)^2] (0.3 / 1.5) ^2 (0.5 / 2) ^2 over the share 0.2 squared
    products = 4 * 1.5**2 * (0.3 / 1.5 * 0.5 / 2.0) / 0.2**2
    assert extra[2] == pytest.approx(products, rel=1e-4)
