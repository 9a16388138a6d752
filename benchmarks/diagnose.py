"""All diagnostics on ResNet-50 at 64 px: seconds, memory, and passes taken over passes stated.

    python -m benchmarks.diagnose [--batch 10] [--draws 2]

Held to 3 minutes (of CPU, where others use the machine), 6 GB, and a factor of 1.3 between
operations taken and stated; the command fails where one is broken. Operations are those of linear
layers, convolutions and products of matrices; seconds include the trace.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import cerewrite
from cerewrite.diagnostics import DIAGNOSTICS, Material, NotApplicableError, Passes
from cerewrite.diagnostics.material import default_loss
from cerewrite.frontend import loading, tracing

MODEL = "examples/resnet50/model.py"
SECONDS, BYTES, FACTOR = 180.0, 6e9, 1.3


def main() -> None:
    """Run them, print a table, and fail where a limit is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnose")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    model = loading.load(MODEL).module
    torch.manual_seed(0)
    x = torch.randn(options.batch, 3, 64, 64)
    y = torch.randint(1000, (options.batch,))
    start, busy = time.perf_counter(), time.process_time()
    found = cerewrite.diagnose(model, x, y, draws=options.draws)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    factors = passes(model, x, y)
    for finding in found.findings:
        factor = factors.get(finding.diagnostic)
        print(
            f"{finding.diagnostic:20} {finding.seconds:7.1f} s   stated {finding.forward:.3g} + "
            f"{finding.backward:.3g}   taken / stated {'-' if factor is None else f'{factor:.3f}'}"
        )
        for figure in finding.figures:
            print(f"    {figure.name:24} {figure.value:.5g} +- {figure.error or 0:.2g}")
    for gap in found.gaps:
        print(f"{gap.where:20} not diagnosed: {gap.reason}")
    print(
        f"{options.draws} draws, batch {options.batch}: {seconds:.0f} s, {busy:.0f} s of CPU, "
        f"{memory / 1e9:.2f} GB"
    )
    worst = max((max(f, 1 / f) for f in factors.values()), default=1.0)
    print(f"largest factor between passes taken and stated: {worst:.3f}")
    if min(seconds, busy) > SECONDS or memory > BYTES or worst > FACTOR:
        sys.exit("a limit is broken")


def passes(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Operations taken over operations stated, for every diagnostic that runs the model."""
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 0.0
    material = Material(model, tracing.trace(model, (x,)), (x,), y, default_loss, len(x))
    with _counter() as counter:
        outputs = material.run()
    forward = counter.get_total_flops()
    with _counter() as counter:
        material.gradient(material.loss_of(outputs))
    backward = counter.get_total_flops()
    found = {}
    for name, one in DIAGNOSTICS.items():
        cost = one.cost(material)
        try:
            with _counter() as counter:
                one.read(material)
        except NotApplicableError:
            continue
        if cost != Passes():
            stated = cost.forward * forward + cost.backward * backward
            found[name] = counter.get_total_flops() / stated
    return found


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False)


if __name__ == "__main__":
    main()
