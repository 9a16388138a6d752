"""What was expected of the referee before anything was measured."""

from __future__ import annotations

PREDICTED = """\
Written down before anything was measured, from the first look of 65 designs at equal parameters
(1 / width, leading order, NASWOT about +0.65; log-variance +0.18; nu 0.0; ZiCo -0.23; gradient
confusion -0.26; SynFlow -0.63) and from the formulas:

* With steps and final loss: leading order and NASWOT +0.5 to +0.75, sign-variance +0.3 to +0.6,
  log-variance +0.1 to +0.4, nu within 0.2 of 0.
* ZiCo 0 to -0.4; SynFlow -0.4 to -0.7 (more members, smaller products of norms); gradient
  confusion 0 to -0.4; gradient norm within 0.3 of 0.
* Capacity and capacity per parameter: -0.3 to -0.7 (members are narrow: fewer bits at equal
  parameters, and they train better).
* Local maps' condition number: -0.3 to -0.6 (grouped layers are square blocks, worse conditioned).
* Drift of the kernel: above 0, +0.2 to +0.6 (less drift, wider in total, better).
* Share of H along the gradient: within 0.3 of 0. Virtual depth: undecided, one baseline.
* Given total width and parameters nothing keeps an interval that excludes 0 in all three outcomes.
* Test error orders as final loss does, at about two thirds of the size.
"""

RANGES = {
    "kernel-measures: leading-order": (0.5, 0.75),
    "naswot: score": (0.5, 0.75),
    "kernel-measures: sign-variance": (0.3, 0.6),
    "kernel-measures: log-variance": (0.1, 0.4),
    "kernel-measures: nu": (-0.2, 0.2),
    "zico: score": (-0.4, 0.0),
    "synflow: log10 score": (-0.7, -0.4),
    "gradient-confusion: least cosine": (-0.4, 0.0),
    "gradient-norm: norm": (-0.3, 0.3),
    "capacity: bits": (-0.7, -0.3),
    "capacity: bits per parameter": (-0.7, -0.3),
    "local-map: log10 condition": (-0.6, -0.3),
    "kernel-drift: drift": (0.2, 0.6),
    "curvature: share of H": (-0.3, 0.3),
}
"""The ranges that `PREDICTED` names, for steps and final loss."""
