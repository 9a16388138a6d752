r"""The leading-order correction: the sum of ``kappa_l`` at total width (docs/theory.md, eq. 87).

A region of ``m`` members of widths ``n_l`` has ``sum_l c_l / (m n_l)``, ``c_l`` a site's kappa at
one unit: nu without the inflation of narrow members. It adds up over regions and remaining
layers. Alone it always prefers the narrowest members, because nothing in it says that they cost
anything: give a least width with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cerewrite.ir import Site
from cerewrite.planning.measures.base import FloatArray, IntArray, Measure, register


@register
class LeadingOrder(Measure):
    """The sum of the layers' corrections at total width: nu to first order in 1/width."""

    name = "leading-order"
    field = "leading_order"
    title = "sum of kappa"

    def member(self, sites: Sequence[Site], widths: FloatArray | IntArray) -> FloatArray:
        """``sum_l c_l / n_l``, ``[designs, 1]``."""
        inverse = 1.0 / np.asarray(widths, dtype=np.float64)
        total = np.zeros(len(inverse))
        for site in sites:
            total += site.coefficient * inverse[:, site.width]
        return total[:, None]

    def score(self, member: FloatArray, multiplicity: FloatArray | IntArray) -> FloatArray:
        """``sum_l c_l / (m n_l)``.

        Example:
            >>> LeadingOrder().score(np.array([[0.5]]), np.array([4])).tolist()
            [0.125]
        """
        return np.asarray(member[..., 0] / multiplicity, dtype=np.float64)

    def layer(self, kappa: float) -> float:
        """The correction itself."""
        return kappa
