r"""The log-variance of the tangent kernel, Var[log K] (docs/theory.md, section 29).

nu is ruled by rare draws once a member's own exceeds about a half; the variance of the logarithm
is not. A product's logarithm is a sum, so regions and remaining layers (``log(1 + kappa)`` each)
add up. For a region, a member's K is taken as log-normal and its mean over m members as in
`log_normal`. The log-variance that goes in lies between two ends::

    S_0 = log(1 + nu_member)                     what the second moment of K sees
    S_1 = S_0 * sum_l w_l psi_1(1 / x_l) / sum_l w_l log(1 + x_l)       Var[log K] of one member
    S   = S_0 + (S_1 - S_0) * c S_0 / (m - 1 + c S_0)

``psi_1`` is the trigamma function: a mean of n energies is nearly gamma-distributed, whose
logarithm has that variance and a tail to the left. ``x_l`` is the relative variance of the
energies that layer l scatters, ``w_l x_l`` its kappa; where only a share s of K passes through
the layer, x_l goes from the one to the other, with s^2. One member shows the tail; in the mean
of many the large ones rule, and those are where the second moment looks.

Units of a ReLU are zero half of the time, and a member one of whose layers is all zero is dead:
its K is 0. Of m members, ``m a`` are alive on average, ``m' = m a / (1 - (1 - a)^m)`` if one is,
with ``a = prod_l (1 - (1 - p)^n_l)`` and ``p = 3 / (1 + v_bb)``, the share of units that such a
variance of backward energies leaves (1/2 to 1), in chains without norms. They are averaged, and
``S_0`` is that of the living, ``log((1 + nu_member) a)``.

``c = 3`` was chosen by Monte-Carlo of ReLU chains of depth 2 to 16 and width 4 to 16, with 1 to
64 members: the result is 6 % off in the median, 25 % in nine of ten, 35 % at worst (depth 16 and
width 6, two members).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cerewrite.ir import Site
from cerewrite.planning.measures.base import (
    HUGE,
    FloatArray,
    IntArray,
    Measure,
    inner_members,
    inverse_widths,
    register,
)
from cerewrite.planning.measures.log_normal import log_mean_variance
from cerewrite.planning.measures.nu import UNEVEN, member_nu

CROSSOVER = 3.0
"""Members, per unit of log-variance, from which on the second moment is what counts."""


LARGEST = 8.0
"""Relative variance of a layer's energies beyond which nothing is known of its logarithm: more
than one ReLU unit has; the tail stays what it is there."""


NEVER = 1e-30
"""Share of dead draws that no score sees: the power is left out, which is most of its time."""


def trigamma(x: FloatArray) -> FloatArray:
    """The second derivative of log Gamma, to 1e-5 relative; positive arguments.

    Example:
        >>> trigamma(np.array([1.0, 10.0])).round(4).tolist()
        [1.6449, 0.1052]
    """
    y = 1.0 / (x + 3.0)
    y2 = y * y
    tail = y + y2 * (0.5 + y * (1.0 / 6.0 - y2 / 30.0))
    return np.asarray(1.0 / x**2 + 1.0 / (x + 1.0) ** 2 + 1.0 / (x + 2.0) ** 2 + tail)


def tail_factor(sites: Sequence[Site], widths: FloatArray | IntArray) -> FloatArray:
    """``S_1 / S_0`` of one member, ``[designs]``, at least 1; 1 for wide ones.

    Args:
        sites: the region's sites in execution order.
        widths: widths of one member, ``[designs, classes]``.
    """
    inverse = inverse_widths(sites, widths)
    logs, seconds = np.zeros(inverse.shape[1]), np.zeros(inverse.shape[1])
    for site in sites:
        up, down = (
            site.forward_share * site.forward_share,
            site.backward_share * site.backward_share,
        )
        unit = site.rho * (site.v_aa * up + site.v_bb * down) / max(up + down, 1e-300)
        share = min(abs(site.forward_share + site.backward_share), 1.0) ** 2
        spread = site.coefficient + share * max(unit - site.coefficient, 0.0)
        if spread > 0.0:
            x = np.minimum(spread * inverse[site.width], LARGEST)
            weight = site.coefficient / spread
            logs += weight * trigamma(1.0 / x)
            seconds += weight * np.log1p(x)
    return np.maximum(np.divide(logs, seconds, out=np.ones_like(logs), where=seconds > 0.0), 1.0)


def dead_share(sites: Sequence[Site], widths: FloatArray | IntArray) -> FloatArray:
    """How often K of one member is 0: a layer of a chain has no unit that is not, ``[designs]``.

    Layers that only a part of K passes, and layers behind norms, leave it alive.

    Args:
        sites: the region's sites in execution order.
        widths: widths of one member, ``[designs, classes]``.

    Example:
        >>> relu = Site("l", 0, 0.5, 0.5, v_aa=5.0, v_bb=5.0, v_ab=1.0)
        >>> dead_share([relu], np.array([[1.0], [2.0]])).round(6).tolist()
        [0.5, 0.25]
    """
    columns = np.asarray(widths, dtype=np.float64).T.copy()
    alive = np.zeros(columns.shape[1])
    for site in sites:
        zero = 1.0 - min(max(3.0 / (1.0 + max(site.v_bb, 0.0)), 0.5), 1.0)
        if zero > 0.0 and site.rho > 0.0 and site.c_norm <= 0.0 and _passes_all(site):
            units = columns[site.width] / min(site.rho, 1.0)
            few = np.flatnonzero(units < math.log(NEVER) / math.log(zero))
            alive[few] += np.log1p(-(zero ** units[few]))
    return np.asarray(-np.expm1(alive))


def between(least: FloatArray, most: FloatArray, members: FloatArray | IntArray) -> FloatArray:
    """The log-variance that goes into a mean of members: from ``most`` of one to ``least`` of many.

    Args:
        least: what the second moment sees, at least 0.
        most: what one member has.
        members: how many, at least 1.
    """
    narrow = CROSSOVER * least
    share = narrow / np.maximum(narrow + (members - 1.0), 1e-300)
    return np.asarray(least + (most - least) * share)


def _passes_all(site: Site) -> bool:
    """Whether all of K passes a site: it is no branch."""
    return abs(site.forward_share + site.backward_share - 1.0) < UNEVEN


@register
class LogVariance(Measure):
    """The variance of log K, which rare draws do not rule; it adds up over regions."""

    name = "log-variance"
    field = "log_variance"
    title = "Var[log K]"

    def member(self, sites: Sequence[Site], widths: FloatArray | IntArray) -> FloatArray:
        """Nu, ``S_1`` and the share of the dead of one member, ``[designs, 3]``."""
        least = np.log1p(member_nu(sites, widths))
        most = least * tail_factor(sites, widths)
        for excess in self.inner_excess(sites, widths):
            least, most = np.maximum(least + excess, 0.0), np.maximum(most + excess, 0.0)
        nu = np.expm1(np.minimum(least, math.log(HUGE)))
        return np.stack([nu, most, dead_share(sites, widths)], axis=-1)

    def inner_excess(
        self, sites: Sequence[Site], widths: FloatArray | IntArray
    ) -> Iterator[FloatArray]:
        """What existing groups inside a member add to one group of the same units, ``[designs]``.

        Args:
            sites: the region's sites in execution order.
            widths: widths of one member, ``[designs, classes]``.
        """
        for groups, own in inner_members(sites):
            narrow = np.asarray(widths, dtype=np.float64) / groups
            apart = self.score(self.member(own, narrow), np.asarray([float(groups)]))
            yield apart - self.score(self.member(own, widths), np.asarray([1.0]))

    def score(self, member: FloatArray, multiplicity: FloatArray | IntArray) -> FloatArray:
        """Var[log K] of ``m`` members.

        Example:
            >>> one = np.array([[np.e - 1.0, 1.0, 0.0]])
            >>> LogVariance().score(one, np.array([1])).round(6).tolist()
            [1.0]
        """
        dead = np.clip(member[..., 2], 1e-300, 1.0 - 1e-12)
        alive = 1.0 - dead
        count = multiplicity * alive / -np.expm1(multiplicity * np.log(dead))
        least = np.maximum(np.log1p(member[..., 0]) + np.log(alive), 0.0)
        most = np.maximum(member[..., 1], least)
        return log_mean_variance(between(least, most, count), np.maximum(count, 1.0))
