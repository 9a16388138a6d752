"""Monte-Carlo of the published designs and of ours: docs/published.json, which PUBLISHED.md reads.

    python -m benchmarks.published_draws [--draws 100] [--models ResNeXt-29 ResNet-50]

Two photographs (scikit-learn's sample images, cut and shrunk to 32 or 64 px) are the batch; batch
norms on its statistics, weights Gaussian of gain 2, K of the first photograph, NTK
parametrisation. Draws are appended to what the file has; stop and start again at will.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor, nn

import cerewrite
from benchmarks.conv_nets import photographs
from benchmarks.published_cases import EXPECTED, PIXELS, RECORD, Case, cases
from cerewrite import ir
from cerewrite.estimators import Assumption
from cerewrite.estimators.monte_carlo import subject_of
from cerewrite.frontend.tracing import trace

MEASURED = "jackknife"


def measure(case: Case, images: Tensor) -> ir.Analysis:
    """The body's analysis with spatial factors measured on what the stem makes of the images."""
    with torch.no_grad():
        entering = case.stem.train()(images)
    return cerewrite.analyze(case.body, entering, gain="he", estimator=MEASURED)


def designs(case: Case, measured: ir.Analysis) -> dict[str, dict[str, Any]]:
    """Members and widths by region: the baseline, the published, and our own plans by nu."""
    found = {f"1 x {case.width}d": {r.name: [1, list(r.widths)] for r in case.regions}}
    for m, n in EXPECTED[case.name]:
        found[f"{m} x {n}d"] = {r.name: [m, list(case.widths(r, n))] for r in case.regions}
    for title, analysis in (("rho 1", case.analysis), ("rho measured", measured)):
        for uniform in (True, False):
            plan = cerewrite.plan(
                analysis, measure="nu", uniform=uniform, allow="all", widths="free"
            )
            own = {r.name: [1, list(r.widths)] for r in case.regions}
            own |= {s.region: [s.multiplicity, list(s.widths)] for s in plan.splits}
            found[f"{'uniform' if uniform else 'block by block'}, {title}"] = own
    return found


def build(case: Case, design: dict[str, Any]) -> nn.Module:
    """The whole model in a design, stem included."""
    own = {r.name: [1, list(r.widths)] for r in case.regions}
    fixed = {name: (m, widths) for name, (m, widths) in design.items() if own[name] != [m, widths]}
    if not fixed:
        return nn.Sequential(case.stem, case.body)
    kept = {name: tuple(split) for name, split in design.items()}
    plan = cerewrite.plan(case.analysis, budget="params=4x", fixed=kept, allow="all", widths="free")
    return nn.Sequential(case.stem, cerewrite.apply(plan, case.body))


def save(record: dict[str, Any]) -> None:
    """Write the record, one design a line."""
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def draw(case: Case, record: dict[str, Any], draws: int) -> None:
    """Draw every design in turn, and save after each."""
    images = photographs(PIXELS[case.name])
    own = record.setdefault(case.name, {})
    if "designs" not in own:
        measured = measure(case, images)
        regions = [estimate.region for estimate in measured.regions]
        own["rho"] = {y.name: [site.rho for site in y.sites] for y in regions}
        own["designs"] = designs(case, measured)
        own["kernels"] = {}
        save(record)
    subjects: dict[str, Any] = {}
    alike: dict[str, str] = {}
    for name, design in own["designs"].items():
        alike[name] = next(key for key, other in own["designs"].items() if other == design)
        if alike[name] == name:
            model = build(case, design)
            subjects[name] = subject_of(
                trace(model, images), model, images, Assumption(gain=2.0, seed=len(subjects))
            )
    for index in range(draws):
        for name, subject in subjects.items():
            kernels = own["kernels"].setdefault(name, [])
            if index >= len(kernels):
                kernels.append(round(subject.kernel(index), 6))
        for name, first in alike.items():
            own["kernels"][name] = own["kernels"][first]
        save(record)
        print(case.name, index + 1, flush=True)


def main() -> None:
    """Add draws until every design has as many as were asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--models", nargs="+", default=list(PIXELS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for case in cases(PIXELS):
        if case.name in options.models:
            draw(case, record, options.draws)


if __name__ == "__main__":
    main()
