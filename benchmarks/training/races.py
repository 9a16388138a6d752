"""The tasks that are run as races: baseline, plans and plain nets on real data.

    python -m benchmarks.training race [--tasks 'digits*'] [--fashion FOLDER]

Every result is kept as it comes, in `benchmarks/training/races/TASK/race.jsonl`; a run that was
stopped goes on from there.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cerewrite
from benchmarks.training import models
from cerewrite import ir
from cerewrite.api.menu import menu_plans
from cerewrite.timing.interleave import interleave
from cerewrite.training.racing.data import read_data
from cerewrite.training.racing.driver import drive
from cerewrite.training.racing.lanes import Build, Task, Trainer, find_optimiser, training_step
from cerewrite.training.racing.records import Records
from cerewrite.training.racing.schedule import Schedule

FOLDER = Path(__file__).with_name("races")

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

BASELINE, HELD, PARAMS, DUAL = "baseline", "held", "parameters only", "dual"
SAME_TIME, SAME_PARAMS = "plain, step of parameters only", "plain, parameters of dual"

SEEDS = 5
RUNS = 25
"""Interleaved runs behind a step time, of processor time: other programs do not count."""

WIDER = (1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
"""Widths over the baseline's among which the plain net of equal step time is looked for."""

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class RaceTask:
    """One baseline on one data set with one optimiser.

    Attributes:
        name: of the task.
        title: for the document.
        data: training and held-out examples.
        build: a plain net of a given width.
        width: the baseline's.
        optimiser: by name; its usual rates are tried.
        steps: optimiser steps of the baseline in the finals.
        batch: examples per step.
        loss: of outputs and targets.
    """

    name: str
    title: str
    data: Callable[[], tuple[Pair, Pair]]
    build: Callable[[int], nn.Module]
    width: int
    optimiser: str
    steps: int
    batch: int = 32
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy


def _split(x: Any, y: Any, seed: int = 0) -> tuple[Pair, Pair]:
    """Standardised inputs, four fifths to train on."""
    inputs = torch.as_tensor(np.asarray(x), dtype=torch.float32)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    train, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    middle, spread = inputs[train].mean(0), inputs[train].std(0).clamp_min(1e-3)
    inputs = (inputs - middle) / spread
    return (inputs[train], y[train]), (inputs[test], y[test])


def digits() -> tuple[Pair, Pair]:
    """scikit-learn's digits: 64 inputs, 10 classes; pixels of unit variance all in all."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    (a, b), (c, d) = _split(np.asarray(x) / 16, torch.as_tensor(y))
    return (a.clamp(-4, 4), b), (c.clamp(-4, 4), d)


def cancer() -> tuple[Pair, Pair]:
    """scikit-learn's breast cancer: 30 inputs, 2 classes."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return _split(x, torch.as_tensor(y))


def diabetes() -> tuple[Pair, Pair]:
    """scikit-learn's diabetes: 10 inputs, one target of unit variance."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    y = torch.as_tensor(y, dtype=torch.float32)[:, None]
    return _split(x, (y - y.mean()) / y.std())


def fashion(folder: Path = FASHION, train: int = 12_000, test: int = 2_000) -> tuple[Pair, Pair]:
    """The first images of Fashion-MNIST's two parts, flattened, of zero mean and unit variance."""

    def read(kind: str, count: int) -> Pair:
        with gzip.open(folder / f"{kind}-images-idx3-ubyte.gz") as file:
            pixels = np.frombuffer(file.read(16 + 784 * count), np.uint8, offset=16)
        with gzip.open(folder / f"{kind}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8)
        images = torch.from_numpy(pixels.reshape(-1, 784).astype(np.float32)) / 255
        return (images - 0.286) / 0.353, torch.from_numpy(labels.astype(np.int64))

    return read("train", train), read("t10k", test)


def _mlp(
    name: str, data: Callable[[], tuple[Pair, Pair]], shape: tuple[int, int, int, int],
    optimiser: str, steps: int, **more: Any,
) -> RaceTask:  # fmt: skip
    inputs, depth, width, outputs = shape
    return RaceTask(
        f"{name}-mlp{depth}x{width}-{optimiser}",
        f"{name}, ReLU MLP of {depth} x {width}, {optimiser}",
        data,
        lambda wide: models.mlp(inputs, depth, wide, outputs),
        width,
        optimiser,
        steps,
        **more,
    )


def tasks(folder: Path = FASHION) -> dict[str, RaceTask]:
    """Every task by name, in the order in which they are run."""
    images = partial(fashion, folder)
    listed = (
        _mlp("digits", digits, (64, 6, 96, 10), "adamw", 200),
        _mlp("digits", digits, (64, 16, 48, 10), "adamw", 300),
        _mlp("fashion", images, (784, 6, 128, 10), "adamw", 400, batch=64),
        _mlp("fashion", images, (784, 16, 96, 10), "adamw", 400, batch=64),
        _mlp("digits", digits, (64, 16, 48, 10), "sgd", 300),
        _mlp("cancer", cancer, (30, 6, 64, 2), "adamw", 150),
        _mlp("diabetes", diabetes, (10, 6, 64, 1), "adamw", 150, loss=nn.functional.mse_loss),
        _mlp("digits", digits, (64, 6, 96, 10), "sgd", 200),
        _mlp("fashion", images, (784, 16, 96, 10), "sgd", 400, batch=64),
        _mlp("digits", digits, (64, 4, 256, 10), "adamw", 200),
    )
    return {task.name: task for task in listed}


def run(wanted: Sequence[RaceTask], folder: Path = FOLDER) -> None:
    """Race what the folder does not hold yet, task by task."""
    for task in wanted:
        began = time.monotonic()
        race(task, Records(folder / task.name))
        print(f"{task.name}: {time.monotonic() - began:.0f} s", flush=True)


def race(task: RaceTask, records: Records) -> None:
    """One task: designs, their step times in turns, the race; goes on where it was stopped."""
    make, rates, _ = find_optimiser(task.optimiser)
    train, test = task.data()
    judged = Task(read_data(train, test, batch=task.batch), task.loss, make)
    if records.header is None:
        records.begin(_header(task, judged, train[0][:2], rates))
    assert records.header is not None
    header = records.header
    builds = _builds(task, header["designs"])
    trainer = Trainer(builds, judged, records.state_of, {"race": task.name})
    drive(schedule_of(header), trainer, records, math.inf, lambda text, share: None)


def schedule_of(header: Mapping[str, Any]) -> Schedule:
    """The race that a header tells of."""
    plain = header["schedule"]
    lists = {key: tuple(value) for key, value in plain.items() if isinstance(value, list)}
    return Schedule(**{**plain, **lists})


def _header(
    task: RaceTask, judged: Task, example: Tensor, rates: Sequence[float]
) -> dict[str, Any]:
    designs = _designs(task, judged, example)
    times = _times({n: b(0) for n, b in _builds(task, designs).items()}, judged, min(rates))
    schedule = Schedule(
        tuple(designs),
        tuple(times.values()),
        tuple(rates),
        SEEDS,
        task.steps,
        len(designs),
        "steps",
    )
    return {"task": task.name, "designs": designs, "schedule": dataclasses.asdict(schedule)}


def _designs(task: RaceTask, judged: Task, example: Tensor) -> dict[str, dict[str, Any]]:
    """Every design of a task: a plan, or the width of a plain net."""
    analysis = cerewrite.analyze(
        _plain(task, task.width, 0), example, estimator="analytic", gain="he",
        memory_batch=task.batch, step_batch=task.batch,
    )  # fmt: skip
    plans = {PARAMS: menu_plans(analysis, {}, "params-only").get("params-only")}
    plans[HELD] = menu_plans(analysis, {}, "held").get("held")
    plans[DUAL] = menu_plans(analysis, {"objective": "dual", "allow": "all"}).get("dual")
    found = {BASELINE: {"width": task.width, "figures": _figures(analysis, None)}}
    for name in (HELD, PARAMS, DUAL):
        plan = plans[name]
        if plan is not None and not any(
            item.get("plan") == ir.encode(plan) for item in found.values()
        ):
            found[name] = {"plan": ir.encode(plan), "figures": _figures(analysis, plan)}
    if PARAMS in found:
        found[SAME_TIME] = {"width": _same_time(task, judged, found[PARAMS])}
    if DUAL in found:
        found[SAME_PARAMS] = {"width": _same_params(task, found[DUAL])}
    for name, build in _builds(task, found).items():
        found[name]["params"] = _count(build(0))
    return found


def _figures(analysis: ir.Analysis, plan: ir.Plan | None) -> dict[str, float]:
    from cerewrite.planning.make import planned_figures

    whole = planned_figures(analysis, ()) if plan is None else plan.planned
    return {"log-variance": whole.measures.log_variance, "nu": whole.measures.nu}


def _builds(task: RaceTask, designs: Mapping[str, Mapping[str, Any]]) -> dict[str, Build]:
    def planned(record: Any) -> Build:
        plan = ir.loads(ir.Plan, ir.dumps(record), source=task.name)
        return lambda seed: cerewrite.apply(
            dataclasses.replace(plan, seed=seed), _plain(task, task.width, seed), inplace=True
        )

    return {
        name: planned(item["plan"]) if "plan" in item else partial(_plain, task, item["width"])
        for name, item in designs.items()
    }


def _plain(task: RaceTask, width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(width)


def _times(built: Mapping[str, nn.Module], task: Task, rate: float) -> dict[str, float]:
    """Seconds of processor time of one step of each, in turns."""
    steps = [training_step(model, task, rate) for model in built.values()]
    samples = interleave(steps, runs=RUNS, clock=time.process_time)
    return {name: sample.median for name, sample in zip(built, samples, strict=True)}


def _same_time(task: RaceTask, judged: Task, design: Mapping[str, Any]) -> int:
    """The width at which a plain net's step takes as long as a design's, of some that are tried."""
    widths = sorted({round(task.width * scale) for scale in WIDER})
    built = {str(width): _plain(task, width, 0) for width in widths}
    built["design"] = _builds(task, {"design": design})["design"](0)
    times = _times(built, judged, 1e-4)
    wanted = times.pop("design")
    return int(min(times, key=lambda width: abs(math.log(times[width] / wanted))))


def _same_params(task: RaceTask, design: Mapping[str, Any]) -> int:
    wanted = _count(_builds(task, {"design": design})["design"](0))
    return min(range(4, task.width + 1), key=lambda w: abs(_count(_plain(task, w, 0)) - wanted))


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
