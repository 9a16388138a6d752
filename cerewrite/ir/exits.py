"""How members' contributions are added at the exits of a region."""

from __future__ import annotations

import math

EXIT_SCALES = ("folded", "explicit", "mean")
"""How the members' contributions are added: ``1 / sqrt(m)`` of each folded into the exits' weights
or as an explicit multiplier, or ``1 / m`` of each as a multiplier (docs/theory.md, section 14)."""


def exit_factor(exit_scale: str, members: int) -> float:
    """What a member's contribution is multiplied by: ``1 / sqrt(m)``, or ``1 / m`` for a mean.

    Example:
        >>> exit_factor("folded", 4), exit_factor("mean", 4)
        (0.5, 0.25)
    """
    return 1.0 / members if exit_scale == "mean" else math.pow(members, -0.5)
