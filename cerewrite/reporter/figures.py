"""Numbers as text, in plain ASCII so that every terminal can show them."""

from __future__ import annotations

import math

from cerewrite.ir import Design

CLOSED_FORM = "closed form"


def count(value: float) -> str:
    """A count with thousands separators.

    Example:
        >>> count(25557032)
        '25,557,032'
    """
    return f"{value:,.0f}" if math.isfinite(value) else str(value)


def scaled(value: float, unit: str = "") -> str:
    """A large figure to three digits with its SI prefix.

    Example:
        >>> scaled(2_680_000_000, "FLOPs"), scaled(803_000), scaled(12, "B")
        ('2.68 GFLOPs', '803 k', '12 B')
    """
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 0.9995 * 10**power and math.isfinite(value):
            return f"{value / 10**power:#.3g}".rstrip(".") + f" {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def plural(amount: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "layer"), plural(2, "layer")
        ('1 layer', '2 layers')
    """
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


def number(value: float) -> str:
    """A dimensionless figure to four digits.

    Example:
        >>> number(0.0212345), number(0.0)
        ('0.02123', '0')
    """
    return f"{value:.4g}"


def with_error(value: float, stderr: float | None) -> str:
    """A figure with its standard error, to the error's second digit.

    Example:
        >>> with_error(0.021234, 0.00034), with_error(0.021234, None)
        ('0.02123 +- 0.00034', '0.02123')
    """
    if stderr is None:
        return number(value)
    if not (math.isfinite(stderr) and math.isfinite(value) and stderr > 0):
        return f"{number(value)} +- {number(stderr)}"
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    if digits > 6:
        return f"{value:.3e} +- {stderr:.1e}"
    return f"{value:.{digits}f} +- {stderr:.{digits}f}"


def percent(share: float) -> str:
    """A share in percent.

    Example:
        >>> percent(0.1234)
        '12.3 %'
    """
    return f"{100 * share:.1f} %"


def ratio(after: float, before: float) -> str:
    """``after / before``, or a dash where there is nothing to compare with.

    Example:
        >>> ratio(3.0, 4.0), ratio(1.0, 0.0)
        ('0.750x', '-')
    """
    if before == 0 or not (math.isfinite(before) and math.isfinite(after)):
        return "-"
    return f"{after / before:.3f}x"


def members(design: Design) -> str:
    """``m x n``: one width where all classes share it, else the width of every class.

    Example:
        >>> members(Design(4, (16, 16))), members(Design(8, (20, 41)))
        ('4 x 16', '8 x (20, 41)')
    """
    widths = design.widths[:1] if len(set(design.widths)) == 1 else design.widths
    listed = ", ".join(map(str, widths))
    return f"{design.multiplicity} x {listed if len(widths) == 1 else f'({listed})'}"


def shape(sizes: tuple[int | str, ...]) -> str:
    """A tensor's shape.

    Example:
        >>> shape(("batch", 3))
        '[batch, 3]'
    """
    return f"[{', '.join(map(str, sizes))}]"


def listed(names: list[str], most: int = 3) -> str:
    """The first few names and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    head = ", ".join(names[:most])
    return head if len(names) <= most else f"{head} and {len(names) - most} more"
