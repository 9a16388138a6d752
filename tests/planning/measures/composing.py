"""The measures' formulas for one region and one design, to test against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from cerewrite.ir import Site
from cerewrite.planning.measures import member_nu
from cerewrite.planning.measures.base import HUGE


def region_nu(sites: Sequence[Site], multiplicity: float, widths: Sequence[float]) -> float:
    """Relative variance of a region split into members (docs/theory.md, section 4).

    Args:
        sites: the region's sites in execution order.
        multiplicity: members, at least 1.
        widths: width of one member per class of the region.

    Returns:
        nu, at least 0: exactly ``nu of one member / multiplicity``.

    Example:
        >>> site = Site("fc1", 0, 0.5, 0.5, v_aa=5.0, v_bb=5.0, v_ab=1.0)
        >>> region_nu([site], 4, [8])
        0.09375
    """
    if not sites:
        return 0.0
    row = np.asarray(widths, dtype=np.float64)[None, :]
    return float(member_nu(sites, row)[0] / multiplicity)


def compose(nus: Iterable[float]) -> float:
    """Relative variance of a product of independent factors: ``prod(1 + nu_i) - 1``.

    Returns:
        At least 0 for factors that are; saturates at 1e300.

    Example:
        >>> round(compose([0.1, 0.2]), 12)
        0.32
    """
    total = math.fsum(math.log1p(nu) for nu in nus)
    return math.expm1(total) if total < math.log(HUGE) else HUGE
