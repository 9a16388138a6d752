"""Latency of rewritten models against their originals, and of block-diagonal layers.

    python -m benchmarks.latency [--threads 1] [--runs 9] [NAME ...]

Four networks at equal parameters: unconstrained (least width 1), with members of widths in
multiples of 16, with FLOPs held as well, and under ``latency=1.0x``; batches 1 and 16, PyTorch
eager and ONNX Runtime. Then `BlockDiagonalLinear` against dense. Every figure is a ratio of
medians of runs that took turns. Writes docs/LATENCY.md.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import nn

import cerewrite
from benchmarks.block_diagonal import forward, medians, train
from benchmarks.zoo import everything
from cerewrite.errors import CerewriteError
from cerewrite.latency.store import machine
from cerewrite.nn import BlockDiagonalLinear

PAGE = Path(__file__).resolve().parents[1] / "docs" / "LATENCY.md"
NETWORKS = ("mlp_digits", "vgg_cnn", "resnet50", "wide_resnet50_2")
ALIGNED: dict[str, Any] = {"min_width": 16, "channel_multiple": 16}
DESIGNS: dict[str, dict[str, Any]] = {
    "params": {"budget": "params", "min_width": 1},
    "params, widths x 16": {"budget": "params", **ALIGNED},
    "params, FLOPs, widths x 16": {"budget": ["params", "flops"], **ALIGNED},
    "params, latency=1.0x": {"budget": ["params", "latency=1.0x"], "min_width": 1},
}
BATCHES = (1, 16)


def rows(name: str, runs: int) -> Iterator[str]:
    """One line per design of a network."""
    torch.manual_seed(0)
    model, inputs = everything()[name]()
    for label, options in DESIGNS.items():
        try:
            result = cerewrite.convert(model, inputs, gain="he", **options)
        except CerewriteError as error:
            yield f"| {name} | {label} | {error.message} |" + " |" * 7
            continue
        before, after = result.plan.baseline, result.plan.planned
        timings = cerewrite.bench(
            model,
            result.model,
            inputs,
            engines=("eager", "onnxruntime"),
            batches=BATCHES,
            runs=runs,
        )
        cells = " | ".join(
            f"{timing.ratio:.2f}" if not timing.refused else "-" for timing in timings
        )
        forecast = result.report.forecast
        told = (
            "-" if forecast is None else f"{forecast.forecast:.2f} / {forecast.measured.ratio:.2f}"
        )
        line = (
            f"| {name} | {label} | {before.nu:.4g} -> {after.nu:.4g} "
            f"| {after.params / before.params:.3f} | {after.flops / before.flops:.2f} "
            f"| {cells} | {told} |"
        )
        print(line, flush=True)
        yield line


def blocks(repeats: int) -> Iterator[str]:
    """Block-diagonal layers over their ideal share of a dense layer's time."""
    for width in (1024, 4096):
        layers: dict[int, nn.Module] = {1: nn.Linear(width, width)}
        layers |= {m: BlockDiagonalLinear(width, width, m) for m in (2, 4, 8, 16, 32, 64)}
        x = torch.randn(512, width)
        ahead, back = (medians(layers, x, step, repeats) for step in (forward, train))
        for members in list(layers)[1:]:
            one, two = ahead[members] / ahead[1], back[members] / back[1]
            line = (
                f"| {width:,} | {members} | {1 / members:.3f} | {one:.3f} | {one * members:.2f} "
                f"| {two:.3f} | {two * members:.2f} |"
            )
            print(line, flush=True)
            yield line


def page(names: list[str], runs: int) -> str:
    """The whole page."""
    lines = [
        "# Latency",
        "",
        "Written by `python -m benchmarks.latency`; do not edit. Forward calls in float32 on",
        f"{machine()}, {torch.get_num_threads()} thread(s), ONNX Runtime "
        f"{onnxruntime.__version__}, Python {platform.python_version()}. Ratios of medians of",
        f"{runs} runs that took turns: above 1 the rewritten model is slower. nu is the closed",
        "form's with He gains. The last column is the forecast of a latency budget (batch 1,",
        "eager) beside what the built model then measured.",
        "",
        "| network | held | nu | params | FLOPs | eager b1 | eager b16 | ORT b1 | ORT b16 "
        "| forecast / measured |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        lines += rows(name, runs)
    lines += [
        "",
        "## Block-diagonal linear layers",
        "",
        "`BlockDiagonalLinear` of equal width in and out, batch 512, as a share of a dense layer's",
        "time; the ideal is 1 / members. `of ideal` is the share over the ideal.",
        "",
        "| width | members | ideal | forward | of ideal | with backward | of ideal |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *blocks(max(runs, 9)),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=1, help="threads that torch may use")
    parser.add_argument("--runs", type=int, default=9, help="runs per median, at least 5")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.write_text(page(options.names, options.runs), encoding="utf-8")


if __name__ == "__main__":
    main()
