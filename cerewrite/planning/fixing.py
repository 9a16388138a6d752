"""Regions whose design the user holds: given by hand, or kept because they are grouped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cerewrite.errors import UsageError
from cerewrite.ir import LARGEST_SIZE, MOST_MEMBERS, Design, Region
from cerewrite.registry import require_whole

DesignLike = str | Design | tuple[int, Sequence[int]]
"""What a design by hand may be given as: ``"8x12,24"``, itself, or ``(8, (12, 24))``."""

_DESIGN = re.compile(r"([1-9][0-9]{0,9})x([1-9][0-9]{0,9}(?:,[1-9][0-9]{0,9})*)")


def parse_design(text: str) -> Design:
    """A design as users write it: ``MxW`` with one width for all classes, or ``MxW,W,...``.

    Raises:
        UsageError: if it cannot be read.

    Example:
        >>> parse_design("8x12,24")
        Design(multiplicity=8, widths=(12, 24))
    """
    match = _DESIGN.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"design '{text[:60]}' cannot be read", advice="write members x widths: 4x16 or 8x12,24"
        )
    return Design(int(match[1]), tuple(int(width) for width in match[2].split(",")))


def held_designs(
    regions: Sequence[Region],
    fixed: Mapping[str, DesignLike],
    *,
    keep_groups: bool,
) -> dict[str, Design]:
    """The designs that the search may not change, by region.

    Args:
        regions: the regions that the plan may touch.
        fixed: designs by hand; one width stands for all classes of a region.
        keep_groups: hold every region that already has several members as it is.

    Raises:
        UsageError: if a region is unknown or left out, or a design breaks one of its rules.
    """
    held: dict[str, Design] = {}
    if keep_groups:
        held = {region.name: region.design for region in regions if region.multiplicity > 1}
    known = {region.name: region for region in regions}
    for name, given in fixed.items():
        if name not in known:
            listed = ", ".join(list(known)[:8]) or "none"
            raise UsageError(
                f"fixed design of '{name}': no such region is planned",
                advice=f"regions are: {listed}",
            )
        design = parse_design(given) if isinstance(given, str) else given
        if not isinstance(design, Design):
            design = Design(design[0], tuple(design[1]))
        if len(design.widths) == 1:
            design = Design(design.multiplicity, design.widths * len(known[name].classes))
        _check(known[name], design)
        held[name] = design
    return held


def _check(region: Region, design: Design) -> None:
    members, widths = design.multiplicity, design.widths
    where = f"fixed design of '{region.name}'"
    if members < 1 or len(widths) != len(region.classes):
        raise UsageError(
            f"{where}: {members} members of {len(widths)} widths",
            advice=f"give at least one member and {len(region.classes)} widths, one per class",
        )
    require_whole(where, members, 1, MOST_MEMBERS)
    for width in widths:
        require_whole(where, width, 1, LARGEST_SIZE)
    for name, width, least, step in zip(
        region.classes, widths, region.least, region.steps, strict=True
    ):
        if width < max(least, 1) or width % step:
            raise UsageError(
                f"{where}: width {width} of '{name}'",
                advice=f"give a multiple of {step} that is at least {max(least, 1)}",
            )
