"""Re-check a plan that was read from a file, and may have been edited by hand."""

from __future__ import annotations

import math
from collections import Counter

from cerewrite.budgets import region_cost
from cerewrite.errors import PlanError
from cerewrite.ir import SCHEMA, Plan, Region, Split
from cerewrite.measures import region_nu

REMEDY = "mend the split, or make the plan again"


def check_plan(plan: Plan) -> None:
    """Raise if a plan contradicts itself; every figure that follows from a split is recounted.

    Args:
        plan: any plan; its model is not needed.

    Raises:
        PlanError: naming the split, the rule it breaks and the figure that would be right.
    """
    if plan.schema > SCHEMA:
        raise PlanError(
            f"the plan has schema {plan.schema}, this version reads up to {SCHEMA}",
            advice="install the version of cerewrite that wrote it",
        )
    regions = {region.name: region for region in plan.regions}
    for name, count in Counter(split.region for split in plan.splits).items():
        if count > 1:
            raise PlanError(f"region '{name}' is split {count} times", advice="keep one split")
    params, flops, growth = plan.baseline.params, plan.baseline.flops, 0.0
    for split in plan.splits:
        region = regions.get(split.region)
        if region is None:
            raise PlanError(
                f"split of '{split.region}': the plan has no region of that name",
                advice=f"choose from: {', '.join(regions) or 'none'}",
            )
        _check_design(split, region)
        _check_figures(split, region)
        own = (region.multiplicity, region.widths)
        params += split.params - region_cost("params", region, *own)
        flops += split.flops - region_cost("flops", region, *own)
        growth += math.log1p(split.nu) - math.log1p(region_nu(region.sites, *own))
    nu = math.expm1(math.log1p(plan.baseline.nu) + growth)
    _same("planned", "params", plan.planned.params, params)
    _same("planned", "flops", plan.planned.flops, flops)
    _same("planned", "nu", plan.planned.nu, nu)


def _check_design(split: Split, region: Region) -> None:
    if split.multiplicity < 1:
        raise _broken(split, f"{split.multiplicity} members; at least 1 is needed")
    if len(split.widths) != len(region.classes):
        raise _broken(
            split, f"{len(split.widths)} widths for the {len(region.classes)} classes of the region"
        )
    for name, width in zip(region.classes, split.widths, strict=True):
        if width < 1:
            raise _broken(split, f"width {width} of '{name}'; at least 1 is needed")
        for module in region.modules:
            if module.width == name and width % module.divisor:
                raise _broken(
                    split, f"width {width} of '{name}' is no multiple of {module.divisor}"
                )


def _check_figures(split: Split, region: Region) -> None:
    where = f"split of '{split.region}'"
    design = (split.multiplicity, split.widths)
    _same(where, "params", split.params, region_cost("params", region, *design))
    _same(where, "flops", split.flops, region_cost("flops", region, *design))
    _same(where, "nu", split.nu, region_nu(region.sites, *design))


def _same(where: str, what: str, stated: float, counted: float) -> None:
    if not math.isclose(stated, counted, rel_tol=1e-9, abs_tol=1e-12):
        raise PlanError(
            f"{where}: {what} is stated as {stated:,}, the design has {counted:,}",
            advice=f"write {counted} there, or make the plan again",
        )


def _broken(split: Split, what: str) -> PlanError:
    return PlanError(f"split of '{split.region}': {what}", advice=REMEDY)
