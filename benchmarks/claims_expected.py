"""The claims of benchmarks/claims.py, and what was expected before anything was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

INF = math.inf
Y, N, U = "yes", "no", "not decided"
"""Expected and found: beyond the interval as claimed, beyond it against the claim, neither."""

PREDICTED = """\
Written down before anything was measured, from the formulas, model by model (column `expected` of
the tables). In short:

* Width: confusion at the start falls in models without batch norm; the share of H falls, nu and
  the drift fall nearly everywhere; nu not measurably as 1 / width, being steeper where it is large.
* Depth and skips leave confusion undecided: deep chains of rectifiers align all inputs, which is
  the opposite of confusion; where batch norm stands, skips lower it, in the transformer they raise
  it.
* Skips lower every block's condition number, before and after training.
* The gradient is not orthogonal to H to 0.1 at these widths, but the curvature along it is
  positive.
* Virtual depth starts under half the blocks but for the network without norm (its branches carry
  twice the energy of the stream: 0.67), and grows in training.
* nu is lower with skips; how it grows with depth is decided where batch norm stands only.
* Second-order terms of gates fall with width, unless the gate alone is wide.
* Wide networks memorise more; twice the depth at equal parameters stores fewer bits, and
  memorises less in the two plain chains, undecided in the others.
"""


@dataclass(frozen=True, slots=True)
class Term:
    """One figure with its sign.

    Attributes:
        sign: factor.
        variant: of the model.
        figure: as the lines name it.
        kind: another model than the row's.
    """

    sign: int
    variant: str
    figure: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a paper says, as a sum of figures and a range.

    Attributes:
        title: it, in words.
        source: the paper.
        shown: what the figure is, in words.
        terms: of the figure, added up seed by seed.
        low, high: it came true where the whole interval lies between.
        expected: per model, where it is not the rest's.
        rest: of the other models.
        log: terms are logarithms (base 10).
        size: terms are absolute values.
        per_width: divided by the logarithm of wide over narrow: a power of the width.
        skips: of models with skips.
        only: of these models; all without.
    """

    title: str
    source: str
    shown: str
    terms: tuple[Term, ...]
    low: float
    high: float
    rest: str
    expected: Mapping[str, str] = field(default_factory=dict)
    log: bool = False
    size: bool = False
    per_width: bool = False
    skips: bool = False
    only: tuple[str, ...] = ()


def _pair(left: str, right: str, figure: str) -> tuple[Term, ...]:
    return Term(1, left, figure), Term(-1, right, figure)


def _within(left: str, right: str, variant: str) -> tuple[Term, ...]:
    return Term(1, variant, left), Term(-1, variant, right)


def _skip_condition(start: str) -> tuple[Term, ...]:
    block = f"{start}local-map: block,"
    return _within(f"{block} with skip", f"{block} without skip", "middle")


CONFUSION, CONVEX = "1904.06963", "2001.04878"
MAPS, SURFACE, RANDOM = "2203.03099", "1611.02525", "2001.10460"
COSINE, BITS = "gradient-confusion: least cosine", "capacity: bits"
DEPTH, NU = "virtual-depth: mean over blocks", "nu"
RATIO, MEMORY = "residual-kernel: nu over twin's", "memorised"
DRIFT = "kernel-drift: drift"
BARE = "resnet without norm"
GROWTH = (Term(1, "middle", f"trained {DEPTH}"), Term(-1, "middle", DEPTH))

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "Width lowers gradient confusion, at the start", CONFUSION,
        "least cosine, wide - narrow", _pair("wide", "narrow", COSINE), 0, INF, Y,
        {"resnet": U, BARE: U, "densenet": U},
    ),
    Claim(
        "Width lowers gradient confusion, after training", CONFUSION,
        "least cosine, wide - narrow", _pair("wide", "narrow", f"trained {COSINE}"), 0, INF, U,
        {"mlp": Y, "gated": Y, "vit": Y},
    ),
    Claim(
        "Depth raises gradient confusion", CONFUSION,
        "least cosine, twice as deep - middle", _pair("deep", "middle", COSINE), -INF, 0, U,
    ),
    Claim(
        "Skips lower gradient confusion", CONFUSION,
        "least cosine, with - without", _pair("middle", "plain", COSINE), 0, INF, U,
        {"resnet": Y, "densenet": Y, "vit": N},
    ),
    Claim(
        "Batch norm lowers gradient confusion", CONFUSION,
        "least cosine, with - without norm",
        (Term(1, "middle", COSINE), Term(-1, "middle", COSINE, BARE)), 0, INF, U,
        only=("resnet",),
    ),
    Claim(
        "Skips lower condition numbers of local maps, at the start", MAPS,
        "log10 condition number of blocks, I + J - J", _skip_condition(""), -INF, 0, Y, skips=True,
    ),
    Claim(
        "Skips lower condition numbers of local maps, after training", MAPS,
        "log10 condition number of blocks, I + J - J", _skip_condition("trained "), -INF, 0, Y,
        skips=True,
    ),
    Claim(
        "Width lowers the share of H in the curvature along the gradient", CONVEX,
        "share of H, wide - narrow", _pair("wide", "narrow", "curvature: share of H"), -INF, 0, Y,
        {"resnet": U, "densenet": U},
    ),
    Claim(
        "Width turns the gradient away from H g", CONVEX,
        "|cos(g, H g)|, wide - narrow",
        _pair("wide", "narrow", "curvature: cosine of g and H g"), -INF, 0, U,
        {"mlp": Y, "gated": Y}, size=True,
    ),
    Claim(
        "In wide networks the gradient is nearly orthogonal to H g", CONVEX,
        "|cos(g, H g)| of wide, under 0.1",
        (Term(1, "wide", "curvature: cosine of g and H g"),), -INF, 0.1, N,
        {"mlp": U, "gated": U, "vit": U}, size=True,
    ),
    Claim(
        "In wide networks the curvature along the gradient is positive", CONVEX,
        "(g'Gg + g'Hg) / (|g'Gg| + |g'Hg|) of wide",
        (Term(1, "wide", "curvature: balance"),), 0, INF, Y, {BARE: U},
    ),
    Claim(
        "Virtual depth starts under half the blocks", SURFACE,
        "mean depth over blocks, under 0.5",
        (Term(1, "middle", DEPTH),), -INF, 0.5, Y, {BARE: N}, skips=True,
    ),
    Claim(
        "Virtual depth grows in training", SURFACE,
        "mean depth over blocks, after - before", GROWTH, 0, INF, Y, {BARE: U}, skips=True,
    ),
    Claim(
        "Batch norm drives the growth of virtual depth", SURFACE,
        "growth with - without norm",
        (*GROWTH, *(Term(-t.sign, t.variant, t.figure, BARE) for t in GROWTH)), 0, INF, U,
        only=("resnet",),
    ),
    Claim(
        "Skips bring a network nearer to its kernel", RANDOM,
        "log10 of nu by draws, with - without", _pair("middle", "plain", NU), -INF, 0, Y, log=True,
    ),
    Claim(
        "With skips nu grows less with depth", RANDOM,
        "log10 of nu by draws, (deep - middle) with - (deep - middle) without",
        (*_pair("deep", "middle", NU), Term(-1, "deep plain", NU), Term(1, "plain", NU)),
        -INF, 0, U,
        {"resnet": Y, "densenet": Y}, log=True,
    ),
    Claim(
        "nu is below the vanilla twin's (closed form)", RANDOM,
        "log10 of nu over the twin's", (Term(1, "middle", RATIO),), -INF, 0, Y, log=True,
        skips=True,
    ),
    Claim(
        "The deeper, the farther below the twin's (closed form)", RANDOM,
        "log10 of nu over the twin's, deep - middle", _pair("deep", "middle", RATIO), -INF, 0, Y,
        log=True, skips=True,
    ),
    Claim(
        "nu falls with width", "2006.07678",
        "log10 of nu by draws, wide - narrow", _pair("wide", "narrow", NU), -INF, 0, Y, log=True,
    ),
    Claim(
        "nu falls as 1 / width", "2006.07678",
        "power of the width, -1.25 to -0.75", _pair("wide", "narrow", NU), -1.25, -0.75, U,
        {"gated": Y}, log=True, per_width=True,
    ),
    Claim(
        "In dually wide gates higher Taylor terms vanish", "2003.12193",
        "log10 of term 2, wide - narrow", _pair("wide", "narrow", "hyper-kernel: term 2"),
        -INF, 0, Y, log=True,
    ),
    Claim(
        "Where the gate alone is wide they do not", "2003.12193",
        "log10 of term 2, all wide - gate wide",
        _pair("wide", "wide gate", "hyper-kernel: term 2"), -INF, 0, Y, log=True,
    ),
    Claim(
        "Orders above the first survive where the gate alone is wide", "2003.12193",
        "surviving order, over 1.5",
        (Term(1, "wide gate", "hyper-kernel: surviving order"),), 1.5, INF, Y,
    ),
    Claim(
        "Width makes training lazy", "1812.07956",
        "log10 of the kernel's drift, wide - narrow", _pair("wide", "narrow", DRIFT), -INF, 0, Y,
        {"densenet": U}, log=True,
    ),
    Claim(
        "The scale of the output makes training lazy", "1812.07956, 2002.09277",
        "log10 of the kernel's drift, at scale 4 - at 1",
        _within(f"{DRIFT} at scale 4", DRIFT, "middle"), -INF, 0, Y, log=True,
    ),
    Claim(
        "More capacity memorises more", "1901.00434",
        "share of random labels learnt, wide - narrow", _pair("wide", "narrow", MEMORY), 0, INF, Y,
    ),
    Claim(
        "Deep networks store less at equal parameters, in bits (closed form)", "1901.00434",
        "log10 of bits per parameter, twice as deep - middle",
        _pair("thin", "middle", f"{BITS} per parameter"), -INF, 0, Y, log=True,
    ),
    Claim(
        "Deep networks store less at equal parameters, by random labels", "1901.00434",
        "share of random labels learnt, twice as deep - middle",
        _pair("thin", "middle", MEMORY), -INF, 0, U, {"mlp": Y, "cnn": Y},
    ),
)  # fmt: skip
