"""Softmax attention in the closed form: heads take the place of units (docs/theory.md, section 33).

What attention writes has the values' mean square and kernel, as if its weights were uniform, and
the kernels of queries and keys in the proportion in which heads pass them. Four slots of noise
stand for one average over heads each.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cerewrite.kernel.growth import nominal_value
from cerewrite.kernel.heads import Head, Heads, head_moments
from cerewrite.kernel.influence import Influence, Noise
from cerewrite.kernel.reading import Readings
from cerewrite.kernel.units import GaussianTerm, Unit
from cerewrite.kernel.values import Moments, gaussian_value


def attend(
    context: Readings,
    head: Head,
    count: float,
    signals: tuple[Moments, Moments, Moments],
    scale: float,
) -> Moments:
    """What the heads of one operator write.

    Args:
        context: gives their slots of noise.
        head: one of them.
        count: how many there are that share no values.
        signals: what queries, keys and values are, unit by unit.
        scale: of the logits.
    """
    first = len(context.slots)
    forward, *backward = (context.slot() for _ in range(4))
    (q, by_query), (k, by_key), (v, by_value) = (_energies(context, x) for x in signals)
    # energies of single positions scatter independently of each other: their averages stand still
    q_size, k_size = nominal_value(q), nominal_value(k)
    heads = head_moments(head, scale**2 * head.size * q_size * k_size)
    at_queries, at_keys = heads.passed.tolist()
    kernel = (
        by_value * backward[0]
        + at_queries / q_size * v * by_query * backward[1]
        + at_keys / k_size * v * by_key * backward[2]
    )
    terms = (_drawn(signals[2]), _drawn(signals[0]), _drawn(signals[1]))
    slots = (first, first + 1, first + 2, first + 3)
    linear = 2.0 / (head.values * count)
    context.heads.append(Heads(slots, heads.covariance / count, linear, terms))
    return gaussian_value(v * forward, kernel)


def _drawn(x: Moments) -> tuple[GaussianTerm, ...]:
    """What layers write into a value."""
    return tuple(term for part in x.parts for term in part.unit.terms if term.layer)


def _energies(context: Readings, x: Moments) -> tuple[Tensor, Tensor]:
    """Mean square and kernel of a value; of one that was turned by its position, those before it.

    Such a value is a sum of pieces of one layer's units times a cosine and a sine: a rotation,
    which moves neither.
    """
    terms = {term.layer: term for term in _drawn(x)}
    if len(terms) == 1 and all(_is_turned(part.unit) for part in x.parts):
        (term,) = terms.values()
        return term.q, term.kernel
    return context.plain(x)


def _is_turned(unit: Unit) -> bool:
    """Whether a unit is a sum of two functions of one layer's values."""
    if unit.kind != "add":
        return False
    layers = [{term.layer for term in side.terms if term.layer} for side in unit.inputs]
    return bool(layers[0] & layers[1])


def add_heads(noise: Noise, heads: list[Heads]) -> None:
    """Add the covariances of heads, and what their layers do to log K.

    The layer of the values has what a linear layer would have, those of queries and keys share
    the rest in halves: it is what heads scatter by weighing.

    Args:
        noise: shares of all slots, and the covariances of width classes.
        heads: as they were met.
    """
    for at in heads:
        slots = np.array(at.slots)
        noise.scatter.append((slots, at.covariance))
        shares = noise.shares[slots]
        total = max(float(shares @ at.covariance @ shares), 0.0)
        up, at_values, *weighing = shares.tolist()
        linear = min(at.linear * (up * up + at_values * at_values), total)
        rest = (total - linear) / len(weighing)
        kinds = ((linear, up, at_values), *((rest, 0.0, share) for share in weighing))
        for terms, (kappa, forward, back) in zip(at.terms, kinds, strict=True):
            for term in terms:
                noise.layers.setdefault(term.layer, []).append(
                    _influence(kappa, forward, back, term.units, len(terms))
                )


def _influence(kappa: float, up: float, down: float, units: float, count: int) -> Influence:
    """One of several equal parts of a layer's influence."""
    size = up * up + down * down
    v = kappa * units / size if size else 0.0
    return Influence(kappa * units / count, up / count, down / count, v, v, 0.0, units)
