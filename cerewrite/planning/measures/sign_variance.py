r"""The log-variance of the sign kernel, Var[log K1] (docs/theory.md, section 12).

Sign descent moves f by the L1 norm of its gradient: ``K1 = (sum_t sqrt(lambda_t) |df/dt|)^2``.
L1 norms of members add, so that m members of log-variance S have ``4 V(S / 4, m)``, ``V`` as in
`log_normal`. Of one member ``S = r S_K``, ``S_K`` that of K (`log_variance`) and ``r`` the ratio
of the two kernels at leading order. A dense layer k gives ``s_k |a|_1 |delta|_1`` to sqrt(K1), its
share ``p_k``. With z, g independent standard normals, one unit of layer l enters log K1 as ::

    F u + B v + 2 p_(l+1) w + 2 p_l x          F = f_up(l) - p_(l+1),   B = f_dn(l) - p_l
    u = phi^2 / E - 1    w = |phi| / E - 1     energy that all above the reader scale with, norm
    v = (phi' g)^2 / E - 1    x = |phi' g| / E - 1     the same of the backward signal
    kappa1_l = Var[F u + B v + 2 p_(l+1) w + 2 p_l x] rho_l / n_l,    r = sum kappa1 / sum kappa

The moments of w and x follow from a site's own: for units that pass a share of their Gaussian
inputs (ReLU, linear), ``Var w = pi (1 + v_aa) / 6 - 1`` and ``Cov[u, w] = 2 (1 + v_aa) / 3 - 1``,
likewise x, and all covariances of forward with backward are ``v_ab``; below ``v_aa = 2`` a
saturated unit's, ``v_aa / 2`` for the covariance. Shares of sqrt(K1) are taken as those of K: in
a chain, what a layer's forward share loses to the next. At a region's ends, where a share cannot
be told from that of all layers beyond, it is at most the mean of those inside.

For many members ``E[K1] / E[sqrt K1]^2`` counts. The second moment of ``K^p`` sees
``S_1 + p (S_0 - S_1)`` of a law whose logarithm has a third cumulant: S_0 at p = 1, their mean at
p = 1/2. One member has ``S_1``; between them as in `log_variance`. Nothing is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cerewrite.ir import Site
from cerewrite.planning.measures.base import FloatArray, IntArray, Measure, register
from cerewrite.planning.measures.log_normal import log_mean_variance
from cerewrite.planning.measures.log_variance import LogVariance, between, tail_factor
from cerewrite.planning.measures.nu import is_chain, member_nu


def layer_shares(sites: Sequence[Site]) -> FloatArray:
    """Shares of the kernel of each site's own layer and of the layer that reads it.

    Args:
        sites: a region's sites in execution order.

    Returns:
        ``[sites, 2]``, each at least 0.

    Example:
        >>> layer_shares([Site("fc1", 0, 2/3, 1/3, 5, 5, 1), Site("fc2", 1, 1/3, 2/3, 5, 5, 1)])
        array([[0.33333333, 0.33333333],
               [0.33333333, 0.33333333]])
    """
    ends = np.array([[site.backward_share, site.forward_share] for site in sites])
    totals = ends.sum(axis=1)
    share = float(totals.mean())
    if not is_chain(sites, share):
        limit = totals[:, None] / (len(sites) + 1)
        return np.asarray(np.clip(np.minimum(ends, limit), 0.0, None))
    inner = np.clip(-np.diff(ends[:, 1]), 0.0, None)
    limit = float(inner.mean()) if len(inner) else share * abs(share) / 2.0
    steps = np.array([min(ends[0, 0], limit), *inner, min(ends[-1, 1], limit)])
    steps = np.clip(steps, 0.0, None)
    return np.stack([steps[:-1], steps[1:]], axis=1)


def norm_moments(energy: float) -> tuple[float, float]:
    """``Var w`` and ``Cov[u, w]`` of a unit's modulus from ``Var u`` of its energy.

    Example:
        >>> [round(x, 4) for x in (*norm_moments(5.0), *norm_moments(2.0))]
        [2.1416, 3.0, 0.5708, 1.0]
    """
    saturated = energy * (math.pi / 4.0 - 0.5)
    return (
        max(math.pi * (1.0 + energy) / 6.0 - 1.0, saturated),
        max(2.0 * (1.0 + energy) / 3.0 - 1.0, energy / 2.0),
    )


def sign_coefficient(site: Site, own: float, reader: float) -> float:
    """``kappa1 * width``: the layer's correction to the sign kernel, at one unit.

    Args:
        site: the site.
        own: share of the kernel of the site's own layer.
        reader: share of the layer that reads it.

    Example:
        >>> round(sign_coefficient(Site("fc", 0, 0.5, 0.5, 5, 5, 1), 0.5, 0.5), 4)
        6.2832
    """
    norm_a, cross_a = norm_moments(site.v_aa)
    norm_b, cross_b = norm_moments(site.v_bb)
    up, down = site.forward_share - reader, site.backward_share - own
    forward = site.v_aa * up * up + 4.0 * reader * (cross_a * up + norm_a * reader)
    backward = site.v_bb * down * down + 4.0 * own * (cross_b * down + norm_b * own)
    mixed = 2.0 * site.v_ab * (up + 2.0 * reader) * (down + 2.0 * own)
    return site.rho * (max(forward + backward + mixed, 0.0) + site.c_norm)


def kernel_ratio(sites: Sequence[Site], widths: FloatArray | IntArray) -> FloatArray:
    """The sign kernel's leading order over that of K, ``[designs]``; 1 where K has none.

    Args:
        sites: the region's sites in execution order.
        widths: widths of one member, ``[designs, classes]``.
    """
    inverse = 1.0 / np.asarray(widths, dtype=np.float64)
    sign, kernel = np.zeros(len(inverse)), np.zeros(len(inverse))
    for site, (own, reader) in zip(sites, layer_shares(sites) if sites else (), strict=True):
        sign += sign_coefficient(site, float(own), float(reader)) * inverse[:, site.width]
        kernel += site.coefficient * inverse[:, site.width]
    usable = (kernel > 0.0) & (sign > 0.0)
    return np.divide(sign, kernel, out=np.ones_like(sign), where=usable)


@register
class SignVariance(Measure):
    """The variance of the sign kernel's logarithm: Adam's first steps move f by that kernel.

    What a remaining layer's share of L1 norms adds is not known: it counts as in K.
    """

    name = "sign-variance"
    field = "sign_variance"
    title = "Var[log K1]"

    def member(self, sites: Sequence[Site], widths: FloatArray | IntArray) -> FloatArray:
        """Nu, and of one member the log-variance that many see and its own, ``[designs, 3]``."""
        nu, ratio = member_nu(sites, widths), kernel_ratio(sites, widths)
        spread, tail = np.log1p(nu) * ratio, tail_factor(sites, widths)
        least, most = spread * (1.0 + tail) / 2.0, spread * tail
        for excess in LogVariance().inner_excess(sites, widths):
            least, most = (np.maximum(x + ratio * excess, 0.0) for x in (least, most))
        return np.stack([nu, least, most], axis=-1)

    def score(self, member: FloatArray, multiplicity: FloatArray | IntArray) -> FloatArray:
        """Var[log K1] of ``m`` members.

        Example:
            >>> member = np.array([[1.0, 4.0, 4.0]])
            >>> SignVariance().score(member, np.array([1, 2])).round(3).tolist()
            [4.0, 2.269]
        """
        spread = between(member[..., 1], member[..., 2], multiplicity)
        return np.asarray(4.0 * log_mean_variance(spread / 4.0, multiplicity))
