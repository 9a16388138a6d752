"""Which regions a plan may touch: include and exclude rules by glob, regex or type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from cerewrite.errors import UsageError
from cerewrite.ir import Analysis, Region, Rejection


def select_regions(
    analysis: Analysis, include: Sequence[str], exclude: Sequence[str]
) -> tuple[tuple[Region, ...], tuple[Rejection, ...]]:
    """Apply the rules to an analysis's regions.

    A rule is a glob (``layer1.*``), a regular expression (``re:layer[12]``, found anywhere), or
    an operator or class type (``type:conv``, ``type:Conv2d``, ``type:batch_norm``). Globs and
    regular expressions are held against the region's name and the names of its layers and
    modules; types against their operators. One match is enough: a region is included if *any*
    of these match an include rule (or there is none), and excluded if *any* matches an exclude
    rule. Exclusion wins.

    Args:
        analysis: the analysis.
        include: rules of which a region must match one; empty for all regions.
        exclude: rules of which a region must match none.

    Returns:
        The regions left, in order, and a rejection for each of the others.

    Raises:
        UsageError: if a rule matches no region, or is fully shadowed by rules of the other
            kind, or its regular expression cannot be compiled.
    """
    regions = [estimate.region for estimate in analysis.regions]
    taken = {rule: _matches(rule, "include", regions, analysis) for rule in include}
    dropped = {rule: _matches(rule, "exclude", regions, analysis) for rule in exclude}
    wanted = set().union(*taken.values()) if include else {region.name for region in regions}
    refused: set[str] = set().union(*dropped.values())
    _refuse_shadowed(taken, dropped, wanted, refused)
    kept = tuple(region for region in regions if region.name in wanted - refused)
    rejections = tuple(
        Rejection(
            region.name,
            "excluded",
            "an exclude rule matches it" if region.name in refused else "no include rule matches",
            "change --include or --exclude to have it considered",
        )
        for region in regions
        if region not in kept
    )
    return kept, rejections


def _matches(rule: str, kind: str, regions: Sequence[Region], analysis: Analysis) -> frozenset[str]:
    matching = frozenset(region.name for region in regions if _hits(rule, region))
    if matching:
        return matching
    names = [layer.name for layer in analysis.layers]
    if not rule.startswith("type:") and any(_name_hits(rule, name) for name in names):
        raise UsageError(
            f"--{kind} '{rule}' matches layers of the model, but none in a region that can be "
            "split",
            advice="drop the rule; `cerewrite explain LAYER` says why a layer is left alone",
        )
    listed = ", ".join(region.name for region in regions[:8]) or "none"
    raise UsageError(
        f"--{kind} '{rule}' matches no region",
        advice=f"regions are: {listed}"
        + (f" and {len(regions) - 8} more" if len(regions) > 8 else ""),
    )


def _refuse_shadowed(
    taken: dict[str, frozenset[str]],
    dropped: dict[str, frozenset[str]],
    wanted: set[str],
    refused: set[str],
) -> None:
    for rule, names in taken.items():
        if names <= refused:
            raise UsageError(
                f"--include '{rule}' has no effect: every region it matches is excluded",
                advice="drop the rule, or narrow the --exclude rules",
            )
    for rule, names in dropped.items():
        if not names & wanted:
            raise UsageError(
                f"--exclude '{rule}' has no effect: no region it matches is included",
                advice="drop the rule, or widen the --include rules",
            )


def _hits(rule: str, region: Region) -> bool:
    if rule.startswith("type:"):
        kinds = {layer.op for layer in region.layers} | {module.op for module in region.modules}
        return _plain(rule[5:]) in {_plain(kind) for kind in kinds}
    layers, modules = (y.name for y in region.layers), (m.name for m in region.modules)
    return any(_name_hits(rule, name) for name in (region.name, *layers, *modules))


def _name_hits(rule: str, name: str) -> bool:
    if not rule.startswith("re:"):
        return fnmatchcase(name, rule)
    try:
        return re.search(rule[3:], name) is not None
    except re.error as error:
        raise UsageError(
            f"rule '{rule}' is no regular expression: {error}", advice="mend the expression"
        ) from None


def _plain(kind: str) -> str:
    """``Conv2d`` and ``conv``, ``BatchNorm2d`` and ``batch_norm`` become the same word."""
    return re.sub(r"\dd$", "", kind.strip().lower().replace("_", ""))
