"""Time what torch has for grouped convolutions of narrow members, against the dense convolution.

    python -m benchmarks.narrow [--threads 1] [--runs 5] [--fresh]

Every way computes the same values with the same weight. Per geometry and memory format all ways
and a dense convolution of about as many parameters take turns; a way that a first call shows to
be far behind is left out. Times are medians, as a multiple of the dense convolution's time scaled
by the ratio of FLOPs: 1 is a FLOP as quick as in the dense layer. Keeps what it measured in
benchmarks/narrow*.jsonl, picks up where it stopped, writes docs/NARROW.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad, unfold

from benchmarks import narrow_models
from benchmarks.narrow_expected import FOUND, PREDICTED
from benchmarks.warm import keep_memory
from cerewrite.timing.interleave import interleave
from cerewrite.timing.store import machine

STORED = Path(__file__).with_suffix(".jsonl")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "NARROW.md"
CHANNELS, MEMBERS, KERNELS, MAPS = (4, 8, 12, 16, 24, 32), (4, 8, 16), (3, 1), (8, 16, 32)
UNEVEN = (5, 7, 10, 20, 47)
"""Widths that plans have where nobody asks for multiples; timed with 8 members."""
BATCH = 32
BLOCK = 16
"""Channels that oneDNN's kernels take at once with AVX-512."""
BEHIND = 2.5
"""A way that takes so many times the grouped one's first calls is timed no further."""
WINS = 0.9
"""Share of the grouped time below which a way counts as the faster."""

Way = Callable[[Tensor, Tensor, int], Tensor]


def grouped(x: Tensor, weight: Tensor, members: int) -> Tensor:
    """As torch does it."""
    return conv2d(x, weight, padding=weight.shape[-1] // 2, groups=members)


def turned(x: Tensor, weight: Tensor, members: int) -> Tensor:
    """In the other memory format, and back."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    here, there = torch.contiguous_format, torch.channels_last
    here, there = (there, here) if last else (here, there)
    y = grouped(x.contiguous(memory_format=there), weight, members)
    return y.contiguous(memory_format=here)


def separate(x: Tensor, weight: Tensor, members: int) -> Tensor:
    """One convolution a member."""
    pieces = zip(x.chunk(members, 1), weight.chunk(members), strict=True)
    return torch.cat([grouped(own, w, 1) for own, w in pieces], 1)


def padded(x: Tensor, weight: Tensor, members: int, *, block: int) -> Tensor:
    """Every member's channels filled up with zeros to a multiple of the kernels' block."""
    width = weight.shape[1]
    more = -width % block
    wide = weight.unflatten(0, (members, -1))
    wide = pad(wide, (0, 0, 0, 0, 0, more, 0, more)).flatten(0, 1)
    if x.is_contiguous(memory_format=torch.channels_last):
        rows = pad(x.permute(0, 2, 3, 1).unflatten(3, (members, width)), (0, more))
        y = grouped(rows.flatten(3).permute(0, 3, 1, 2), wide, members)
        own = y.permute(0, 2, 3, 1).unflatten(3, (members, -1))[..., :width]
        return own.flatten(3).permute(0, 3, 1, 2)
    filled = pad(x.unflatten(1, (members, width)), (0, 0, 0, 0, 0, more)).flatten(1, 2)
    return grouped(filled, wide, members).unflatten(1, (members, -1))[:, :, :width].flatten(1, 2)


def merged(x: Tensor, weight: Tensor, members: int, *, share: int) -> Tensor:
    """``share`` members in one group, with zeros between them."""
    width = weight.shape[1]
    blocks = weight.unflatten(0, (members // share, share, width))
    rows = [pad(blocks[:, i], (0, 0, 0, 0, i * width, (share - 1 - i) * width))
            for i in range(share)]  # fmt: skip
    return grouped(x, torch.stack(rows, 1).flatten(0, 2), members // share)


def patches(x: Tensor, weight: Tensor, members: int) -> Tensor:
    """Patches times a batched product."""
    kernel = weight.shape[-1]
    columns = x.flatten(2) if kernel == 1 else unfold(x, kernel, padding=kernel // 2)
    product = weight.flatten(1).unflatten(0, (members, -1)) @ columns.unflatten(1, (members, -1))
    y = product.flatten(1, 2).unflatten(2, x.shape[2:])
    return y.contiguous(memory_format=_format(x))


def _format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def ways(width: int, members: int) -> dict[str, Way]:
    """Those that there are for a width of member."""
    found: dict[str, Way] = {"grouped": grouped, "turned": turned, "separate": separate}
    for block in (8, 16):
        if width % block:
            found[f"padded to {block}"] = partial(padded, block=block)
    for share in (2, 4):
        if width * share <= 4 * BLOCK and share <= members:
            found[f"merged by {share}"] = partial(merged, share=share)
    return found | {"patches": patches}


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds per call of one geometry in one memory format, forward or with backward.

    Attributes:
        width: channels of a member, in and out.
        flops: FLOPs over the dense convolution's.
        dense: median of the dense convolution.
        seconds: median of each way that was timed to the end.
    """

    width: int
    members: int
    kernel: int
    map: int
    last: bool
    step: bool
    flops: float
    dense: float
    seconds: dict[str, float]

    def over(self, way: str) -> float:
        """A way's time over the dense one's scaled by FLOPs."""
        return self.seconds[way] / (self.dense * self.flops)

    @property
    def best(self) -> str:
        """The fastest way."""
        return min(self.seconds, key=lambda way: self.seconds[way])


def _forward(way: Way, x: Tensor, weight: Tensor, members: int) -> None:
    with torch.no_grad():
        way(x, weight, members)


def _step(way: Way, x: Tensor, weight: Tensor, members: int) -> None:
    y = way(x, weight, members)
    torch.autograd.grad(y, [x, weight], torch.ones_like(y))


def measured(
    width: int, members: int, kernel: int, size: int, *, last: bool, runs: int
) -> Iterator[Timed]:
    """Forward, and forward with backward."""
    torch.manual_seed(0)
    form = torch.channels_last if last else torch.contiguous_format
    wide = max(2 * BLOCK, BLOCK * math.ceil(width * math.sqrt(members) / BLOCK))

    def operands(total: int, read: int) -> tuple[Tensor, Tensor]:
        tensors = torch.randn(BATCH, total, size, size), torch.randn(total, read, kernel, kernel)
        x, weight = (t.contiguous(memory_format=form).requires_grad_() for t in tensors)
        return x, weight

    own, dense = operands(width * members, width), operands(wide, wide)
    flops = members * width**2 / wide**2
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    for run in (_forward, _step):
        actions = {"dense": partial(run, grouped, *dense, 1)}
        actions |= {k: partial(run, way, *own, members) for k, way in ways(width, members).items()}
        first = {}
        for name, action in actions.items():
            action()
            start = clock()
            action()
            first[name] = clock() - start
        kept = {k: a for k, a in actions.items()
                if k == "dense" or first[k] <= BEHIND * first["grouped"]}  # fmt: skip
        samples = interleave(list(kept.values()), runs=runs, warm=1, clock=clock)
        seconds = {k: s.median for k, s in zip(kept, samples, strict=True)}
        spent = seconds.pop("dense")
        yield Timed(width, members, kernel, size, last, run is _step, flops, spent, seconds)


def stored() -> list[Timed]:
    """What has been measured."""
    lines = STORED.read_text(encoding="utf-8").splitlines() if STORED.exists() else []
    return [Timed(**json.loads(line)) for line in lines]


def measure(runs: int) -> None:
    """Measure what is not stored yet."""
    done = {(t.width, t.members, t.kernel, t.map, t.last) for t in stored() if t.step}
    forms = (False, True)
    grids = (
        itertools.product(CHANNELS, MEMBERS, KERNELS, MAPS, forms),
        itertools.product(UNEVEN, (8,), KERNELS, MAPS[:2], forms),
    )
    for width, members, kernel, size, last in itertools.chain(*grids):
        if (width, members, kernel, size, last) in done:
            continue
        found = list(measured(width, members, kernel, size, last=last, runs=runs))
        with STORED.open("a", encoding="utf-8") as out:
            for item in found:
                out.write(json.dumps(asdict(item)) + "\n")


def rows(items: list[Timed]) -> Iterator[str]:
    """One line per width, kernel, format: medians over members and maps, and who wins."""
    for kernel, last, width in itertools.product(KERNELS, (False, True), sorted(CHANNELS + UNEVEN)):
        cells = []
        for step in (False, True):
            at = [t for t in items if (t.kernel, t.last, t.width, t.step)
                  == (kernel, last, width, step)]  # fmt: skip
            if not at:
                continue
            plain = [t.over("grouped") for t in at]
            best = [t.over(t.best) for t in at]
            gains = [t.seconds[t.best] / t.seconds["grouped"] for t in at]
            won = [t.best for t, gain in zip(at, gains, strict=True) if gain < WINS]
            names = ", ".join(
                f"{w} {won.count(w)}" for w in sorted({*won}, key=lambda w: (-won.count(w), w))
            )
            cells.append(
                f"{statistics.median(plain):.2f} | {statistics.median(best):.2f} "
                f"({min(best):.2f} to {max(best):.2f}) | {names or '-'} of {len(at)}"
            )
        form = "last" if last else "first"
        yield f"| {kernel}x{kernel} | {form} | {width} | {' | '.join(cells)} |"


def wins(items: list[Timed]) -> str:
    """On how many geometries some way beats the grouped convolution by a tenth."""
    steps = [t for t in items if t.step]
    gains = [t.seconds[t.best] / t.seconds["grouped"] for t in steps]
    won = [gain for gain in gains if gain < WINS]
    typical = statistics.median(won) if won else 1.0
    return (
        f"Forward and backward, some way takes less than {WINS} of the grouped convolution's time "
        f"on {len(won)} of {len(gains)} geometries, and there {typical:.2f} of it in the median."
    )


def page(items: list[Timed], threads: int) -> str:
    """The whole page."""
    cases = "| kernel | channels | width | grouped | fastest | faster by 10 % "
    lines = [
        "# Narrow members",
        "",
        "Written by `python -m benchmarks.narrow`; do not edit. Grouped convolutions in float32 at",
        f"batch {BATCH} on {machine()}, {threads} thread(s), Python {platform.python_version()}.",
        "Times are medians of runs that took turns, over the time of a dense convolution of about",
        "as many parameters, scaled by the ratio of FLOPs: 1 is a FLOP as quick as there. A line",
        f"is the median over {', '.join(map(str, MEMBERS))} members and maps of",
        f"{', '.join(map(str, MAPS))} (widths {', '.join(map(str, UNEVEN))}: 8 members, maps of 8",
        "and 16, for the narrowest 32 as well); on one thread,",
        "of that thread's own time, and the range of the fastest. Ways that a first call shows to",
        "be far behind are not timed further.",
        "",
        wins(items),
        "",
        f"{cases}| with backward: grouped | fastest | faster by 10 % |",
        "| --- " * 9 + "|",
        *rows(items),
        "",
        "## Whole training steps",
        "",
        "Forward and backward over the original's, batch 32 of 3x32x32, contiguous; the same plan",
        "with stock convolutions and as built.",
        "",
        *narrow_models.rows(),
        "",
        "## What was expected",
        "",
        PREDICTED,
        "## What came out",
        "",
        FOUND,
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads that torch may use")
    parser.add_argument("--runs", type=int, default=5, help="runs per median, at least 5")
    parser.add_argument("--fresh", action="store_true", help="measure everything anew")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_memory()
    if options.fresh:
        STORED.unlink(missing_ok=True)
        narrow_models.STORED.unlink(missing_ok=True)
    measure(options.runs)
    narrow_models.measure(options.runs)
    options.out.write_text(page(stored(), options.threads), encoding="utf-8")


if __name__ == "__main__":
    main()
