"""Latency of rewritten models against their originals, and of block-diagonal layers.

    python -m benchmarks.latency [--threads 1] [NAME ...]

Four networks at equal parameters: unconstrained (least width 1), with members of widths in
multiples of 16, with FLOPs held as well, and under ``latency=1.0x``; batches 1 and 16, PyTorch
eager and ONNX Runtime. Then `BlockDiagonalLinear` against dense. Every figure is a ratio of
medians of runs that took turns. Writes docs/LATENCY.md.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch

import cerewrite
from benchmarks import block_diagonal
from benchmarks.block_diagonal import spread_of
from benchmarks.warm import keep_memory
from benchmarks.zoo import everything
from cerewrite.errors import CerewriteError
from cerewrite.ir import Timing
from cerewrite.timing.store import machine

PAGE = Path(__file__).resolve().parents[1] / "docs" / "LATENCY.md"
NETWORKS = ("mlp_digits", "vgg_cnn", "resnet50", "wide_resnet50_2")
ALIGNED: dict[str, Any] = {"min_width": 16, "channel_multiple": 16}
DESIGNS: dict[str, dict[str, Any]] = {
    "params": {"budget": "params", "min_width": 1},
    "params, widths x 16": {"budget": "params", **ALIGNED},
    "params, FLOPs, widths x 16": {"budget": ["params", "flops"], **ALIGNED},
    "params, latency=1.0x": {"budget": ["params", "latency=1.0x"], "min_width": 1},
}
HELD_BY_NOTHING: dict[str, Any] = {
    "gain": "he", "estimator": "analytic", "allow": "all", "widths": "free", "min_gain": 0.0,
}  # fmt: skip
"""What the page says of every design: closed form, and only the named costs limited."""

BATCHES = (1, 16)
ENGINES = ("eager", "onnxruntime")


RUNS = {"mlp_digits": 101, "vgg_cnn": 25}
"""Runs behind a median: many where one call takes microseconds, `FEWEST` elsewhere."""

FEWEST = 9


@dataclass(frozen=True, slots=True)
class Held:
    """A design under a latency budget: what it measured, as a share, and nu before and after."""

    name: str
    ratio: float
    before: float
    after: float

    @property
    def kept(self) -> bool:
        """At most 1.05 of the original's latency, and a smaller nu."""
        return self.ratio <= 1.05 and self.after < self.before


def rows(name: str, held: list[Held]) -> Iterator[str]:
    """One line per design of a network; designs under a latency budget are noted in ``held``."""
    torch.manual_seed(0)
    model, inputs = everything()[name]()
    for label, options in DESIGNS.items():
        try:
            result = cerewrite.convert(model, inputs, **(HELD_BY_NOTHING | options))
        except CerewriteError as error:
            yield f"| {name} | {label} | {error.message} |" + " |" * 7
            continue
        before, after = result.plan.baseline, result.plan.planned
        runs = RUNS.get(name, FEWEST)
        timings = cerewrite.bench(
            model, result.model, inputs, engines=ENGINES, batches=BATCHES, runs=runs
        )
        told = "-"
        if forecast := result.report.forecast:
            told = f"{forecast.forecast:.2f} / {cell(forecast.measured)}"
            held.append(Held(name, timings[0].ratio, before.nu, after.nu))
        line = (
            f"| {name} | {label} | {before.nu:.4g} -> {after.nu:.4g} "
            f"| {after.params / before.params:.3f} | {after.flops / before.flops:.2f} "
            f"| {' | '.join(map(cell, timings))} | {told} |"
        )
        print(line, flush=True)
        yield line


def cell(timing: Timing) -> str:
    """A ratio with its spread."""
    if timing.refused:
        return "-"
    before, after = timing.original, timing.rewritten
    spread = spread_of(before, timing.original_spread, after, timing.rewritten_spread)
    return f"{timing.ratio:.2f} ± {spread:.2f}"


def verdict(held: list[Held]) -> list[str]:
    """What the designs under a latency budget did."""
    kept = [item for item in held if item.kept]
    listed = ", ".join(
        f"{item.name} {item.ratio:.2f} (nu {item.after / item.before:.2f} of before)"
        for item in held
    )
    return [
        "",
        f"Under `latency=1.0x`, eager at batch 1: {listed}. At most 1.05 of the original's "
        f"latency with a smaller nu: {len(kept)} of {len(held)}.",
    ]


def page(names: list[str]) -> str:
    """The whole page."""
    start, memory = time.perf_counter(), keep_memory()
    held: list[Held] = []
    table = [line for name in names for line in rows(name, held)]
    blocks = [
        line
        for width in (1024, 4096)
        for line in block_diagonal.rows(width, 512, block_diagonal.RUNS)
    ]
    minutes = (time.perf_counter() - start) / 60
    lines = [
        "# Latency",
        "",
        f"Written by `python -m benchmarks.latency` in {minutes:.0f} minutes; do not edit. Forward",
        f"calls in float32 on {machine()}, {torch.get_num_threads()} thread(s), ONNX Runtime",
        f"{onnxruntime.__version__}, Python {platform.python_version()}; {memory}. Ratios of",
        "medians of runs that took turns, each of 5 ms or more of calls: above 1 the rewritten",
        "model is slower. A median has 9 runs or more; what follows ± is half the interquartile",
        "ranges of the two, combined. nu is the closed form's with He gains. The last column is",
        "the forecast of a latency budget (batch 1, eager) beside what the conversion measured.",
        "",
        "| network | held | nu | params | FLOPs | eager b1 | eager b16 | ORT b1 | ORT b16 "
        "| forecast / measured |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *table,
        *verdict(held),
        "",
        "## Block-diagonal linear layers",
        "",
        "`BlockDiagonalLinear` of equal width in and out, batch 512, as a share of a dense layer's",
        "time; the ideal is 1 / members. `of ideal` is the share over the ideal. Medians of",
        f"{block_diagonal.RUNS} runs; on one thread, of that thread's own time.",
        *block_diagonal.remarks(),
        "",
        "| width | members | ideal | forward | of ideal | with backward | of ideal |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *blocks,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=1, help="threads that torch may use")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.write_text(page(options.names), encoding="utf-8")


if __name__ == "__main__":
    main()
