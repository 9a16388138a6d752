"""Kill conversions at random moments: `python killing.py FOLDER MOMENTS onnx|plain`.

Everything is imported once; each conversion runs in a fork and is killed by SIGKILL. Prints one
word per moment: what the folder was found to be.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

import cerewrite
from cerewrite import output

SEEDED = (output.PLAN, output.WEIGHTS, output.MODULE)
WRITTEN = {*SEEDED, output.REPORT, output.PAGE}


def convert(out: Path, onnx: bool, overwrite: bool = False) -> None:
    """One conversion of a small chain; the same bytes every time."""
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(64, 64), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(64, 5))
    cerewrite.convert(
        net,
        torch.ones(2, 64),
        out=out,
        onnx=onnx,
        overwrite=overwrite,
        estimator="analytic",
        allow="all",
    )


def killed_after(seconds: float, out: Path, onnx: bool, overwrite: bool) -> None:
    """Run a conversion in a fork and kill it."""
    child = os.fork()
    if child == 0:
        try:
            convert(out, onnx, overwrite)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def found(out: Path, sound: dict[str, bytes], onnx: bool) -> str:
    """``absent``, ``whole`` (the bytes that an undisturbed run writes) or ``BROKEN``."""
    if not out.exists():
        return "absent"
    written = {item.name for item in out.iterdir()}
    if written != WRITTEN | ({output.ONNX} if onnx else set()):
        return f"BROKEN:{sorted(written)}"
    same = all((out / name).read_bytes() == data for name, data in sound.items())
    return "whole" if same else "BROKEN:bytes"


def main(folder: Path, moments: int, onnx: bool) -> None:
    """Half of the moments fall on a new folder, half on the replacement of an earlier one."""
    convert(folder / "sound", onnx)
    start = time.perf_counter()
    convert(folder / "timed", onnx)
    seconds = 1.1 * (time.perf_counter() - start)
    sound = {name: (folder / "sound" / name).read_bytes() for name in SEEDED}
    draw = random.Random(0)
    for moment in range(moments):
        replacing = bool(moment % 2)
        out = folder / ("sound" if replacing else f"out{moment}")
        killed_after(draw.uniform(0, seconds), out, onnx, replacing)
        word = found(out, sound, onnx)
        print(f"{'replaced' if replacing else 'new'}:{word}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "onnx")
