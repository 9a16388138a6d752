"""How far plans may be from the optimum: the Lagrangian bound beside the value found.

    python -m benchmarks.gap

torchvision's models on 224 px, block scope, equal parameters and its dual, by each measure. The
bound holds for the fronts that were searched; `tests/planning/test_optimum.py` compares with
exhaustive search where that can be done.
"""

from __future__ import annotations

import torch

import cerewrite
from benchmarks.zoo import torchvision_models
from cerewrite.errors import CerewriteError
from cerewrite.planning.measures import MEASURES

MODELS = ("resnet50", "resnet101", "vgg16", "densenet121")


def main() -> None:
    """Print one row per model, measure and objective."""
    print(f"{'model':12} {'measure':14} {'objective':9} {'regions':>7} {'before':>10} "
          f"{'after':>10} {'params':>12} {'gap':>9}")  # fmt: skip
    for name in MODELS:
        model = getattr(torchvision_models(), name)(weights=None)
        analysis = cerewrite.analyze(
            model, torch.zeros(2, 3, 224, 224), gain="he", estimator="analytic"
        )
        for measure in MEASURES:
            for objective in ("primal", "dual"):
                row(name, analysis, measure, objective)


def row(name: str, analysis: cerewrite.ir.Analysis, measure: str, objective: str) -> None:
    """Plan once and print what came of it."""
    start = f"{name:12} {measure:14} {objective:9} {len(analysis.regions):7}"
    try:
        plan = cerewrite.plan(
            analysis,
            measure=measure,
            objective=objective,
            min_width=4,  # type: ignore[arg-type]
            allow="all",
            widths="free",
        )
    except CerewriteError as error:
        print(f"{start} refused: {error.message}", flush=True)
        return
    before, after = (
        MEASURES[measure].of(figures.measures) for figures in (plan.baseline, plan.planned)
    )
    print(f"{start} {before:10.5f} {after:10.5f} {plan.planned.params:12,} {100 * plan.gap:7.4f} %",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
