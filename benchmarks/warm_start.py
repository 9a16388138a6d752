"""Warm start against fresh weights, on trained digits models; writes docs/WARM_START.md.

    python -m benchmarks.warm_start [--seeds 5] [--no-write]

scikit-learn digits (8x8, ten classes): 1,200 images to train on, 597 to test. For every seed an
MLP and a small CNN with batch norm are trained, converted at equal parameters, and the ensemble
gets its weights by transfer (fitted on 400 training images, no labels) or by re-initialisation.
Measured: relative output error and test accuracy before any training, and Adam steps until the
test accuracy is within half a point of the original's.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import cerewrite
from cerewrite.verifier import output_error

CALIBRATION, LIMIT, EVERY, CLOSE = 400, 300, 5, 0.005
STUDENT_95 = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % quantiles of Student's t, by degrees of freedom."""

Data = tuple[Tensor, Tensor, Tensor, Tensor]


def digits(seed: int) -> Data:
    """Training images and labels, test images and labels; pixels in [-1, 1]."""
    held = load_digits()
    order = torch.randperm(len(held.data), generator=torch.Generator().manual_seed(seed))
    x = torch.tensor(held.data / 8 - 1, dtype=torch.float32)[order]
    y = torch.tensor(held.target)[order]
    return x[:1200], y[:1200], x[1200:], y[1200:]


def mlp() -> nn.Module:
    """64 -> 96 x 4 -> 10, ReLU."""
    layers: list[nn.Module] = []
    for inputs in (64, 96, 96, 96):
        layers += [nn.Linear(inputs, 96), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(96, 10))


def cnn() -> nn.Module:
    """Four 3x3 convolutions of 24 channels with batch norm, one pool, a linear head."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for index, inputs in enumerate((1, 24, 24, 24)):
        layers += [nn.Conv2d(inputs, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
        if index == 0:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {"MLP": (mlp, 400), "CNN": (cnn, 200)}
"""Model, and steps that the original is trained for."""


def accuracy(model: nn.Module, data: Data) -> float:
    """Share of test images classified correctly."""
    model.eval()
    with torch.no_grad():
        return float((model(data[2]).argmax(1) == data[3]).double().mean())


def train(model: nn.Module, data: Data, steps: int, seed: int, wanted: float = 2.0) -> int:
    """Adam at 1e-3, batch 128; returns the step at which a test accuracy is reached, or steps."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(seed)
    if accuracy(model, data) >= wanted:
        return 0
    for step in range(1, steps + 1):
        model.train()
        batch = torch.randint(len(data[0]), (128,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data[0][batch]), data[1][batch]).backward()
        optimiser.step()
        if step % EVERY == 0 and wanted <= 1 and accuracy(model, data) >= wanted:
            return step
    return steps


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one ensemble did: output error, accuracy before training, steps to recover."""

    error: float
    accuracy: float
    steps: float


def run(name: str, seed: int) -> tuple[float, str, Outcome, Outcome, Outcome]:
    """The original's accuracy, the design; what became of transfer, fresh, copied weights."""
    build, steps = MODELS[name]
    torch.manual_seed(seed)
    data, model = digits(seed), build()
    train(model, data, steps, seed)
    original = accuracy(model, data)
    inputs = (data[0][:CALIBRATION],)
    found = cerewrite.analyze(model, data[0][:2], estimator="analytic")
    plan = cerewrite.plan(
        found, budget="params", weights="transfer", seed=seed, allow="all", widths="free"
    )
    design = ", ".join(f"{s.multiplicity} x {s.widths}" for s in plan.splits)
    outcomes = []
    for weights, given in (("transfer", inputs), ("reinitialise", None), ("transfer", None)):
        made = replace(plan, weights=weights)
        ensemble = cerewrite.apply(made, model, calibration=given)
        before = accuracy(ensemble, data)
        error = output_error(model, ensemble, (data[2],))
        taken = train(ensemble, data, LIMIT, seed + 1000, original - CLOSE)
        outcomes.append(Outcome(error, before, taken))
    print(f"{name} seed {seed}: original {original:.4f}, {design}: {outcomes}", flush=True)
    return original, design, *outcomes


def interval(values: list[float]) -> str:
    """Mean and half-width of its 95 % interval over the seeds."""
    count = len(values)
    mean = sum(values) / count
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, count - 1))
    half = STUDENT_95.get(count - 1, 1.96) * spread / math.sqrt(count)
    return f"{mean:.3f} +- {half:.3f}" if mean < 10 else f"{mean:.0f} +- {half:.0f}"


def table(seeds: int) -> str:
    """The results as Markdown."""
    lines = [
        "| model | weights | output error | accuracy before training | steps to recover |",
        "| --- | --- | --- | --- | --- |",
    ]
    notes = []
    for name in MODELS:
        results = [run(name, seed) for seed in range(seeds)]
        lines.append(f"| {name} | original | | {interval([r[0] for r in results])} | |")
        for index, label in ((2, "transfer"), (3, "re-initialised"), (4, "copied")):
            own = [r[index] for r in results]
            cells = [interval([getattr(o, key) for o in own]) for key in Outcome.__slots__]
            capped = sum(o.steps >= LIMIT for o in own)
            cells[-1] += f" ({capped} of {seeds} not within {LIMIT})" if capped else ""
            lines.append(f"| {name} | {label} | {' | '.join(cells)} |")
        wins = [
            sum(r[2].accuracy > r[3].accuracy for r in results),
            sum(r[2].steps < r[3].steps for r in results),
        ]
        notes.append(
            f"* {name}, {results[0][1]} at seed 0: transfer is more accurate before training in "
            f"{wins[0]} of {seeds} seeds and recovers in fewer steps in {wins[1]} of {seeds}."
        )
    return "\n".join([*lines, "", *notes])


HEAD = """# Warm start, measured

`python -m benchmarks.warm_start` writes this file. scikit-learn digits, 1,200 images to train on
and 597 to test, pixels in [-1, 1]; an MLP (64, 4 x 96, 10) and a CNN (four 3x3 convolutions of 24
channels with batch norm), trained with Adam (1e-3, batch 128), converted at equal parameters.
*Transfer*: members take the trained channels and are fitted on {calibration} training images
without their labels. *Re-initialised*: the same design drawn anew. Output error: |g - f| / |f|
over the test images, before any training. Steps: Adam (1e-3, batch 128) with labels until the
test accuracy is within half a point of the original's, looked at every {every} steps. Mean over
{seeds} seeds with the half-width of its 95 % interval (Student's t).

{table}

*Copied* is a transfer without calibration inputs: the blocks that are cut away are lost, and
nothing makes up for them. Runs that did not get there in {limit} steps count as {limit}. What this
does not say: the task is small, and final accuracies after long training were not compared.
"""


def main() -> None:
    """Print the table; write the document unless told not to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = table(options.seeds)
    print(found)
    if not options.no_write:
        text = HEAD.format(
            calibration=CALIBRATION, every=EVERY, limit=LIMIT, seeds=options.seeds, table=found
        )
        path = Path(__file__).resolve().parent.parent / "docs" / "WARM_START.md"
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
