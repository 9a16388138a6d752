"""Random attention blocks: the closed form against draws; part of docs/ACCURACY.md.

    python -m benchmarks.attention [--blocks 30] [--draws 2400] [--seed 0] [--store FILE]

One block each, with its embedding and its read-out: 1 to 16 heads of 8 to 64 channels, the mean
over the positions or one token, causal or not, with rotary positions or not, at the gain of
PyTorch's linear layers (logits of deviation 1/3) or at gain 1 (deviation 1). Positions are
Gaussian vectors of 512 features, nearly orthogonal, as the closed form takes them to be.
Results are kept in ``--store`` and not made again.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cerewrite
from benchmarks.levels import DOCUMENT, placed
from benchmarks.lines import add_line, read_lines

FEATURES = 512
BEGIN, END = "<!-- attention: begin -->", "<!-- attention: end -->"
DRAWS_SEED = 1000


@dataclass(frozen=True)
class Sizes:
    """What one block is.

    Attributes:
        heads: their number.
        size: channels of one head.
        tokens: positions.
        token: whether one token is read out instead of the mean.
        causal: whether positions see those before them only; the token is the last one then.
        rotary: whether queries and keys are turned by their positions.
        gain: of every layer, 1/3 as PyTorch builds them, or 1.
    """

    heads: int
    size: int
    tokens: int
    token: bool
    causal: bool
    rotary: bool
    gain: float

    @property
    def title(self) -> str:
        """One cell of a table."""
        words = ["token" if self.token else "mean"]
        words += [name for name in ("causal", "rotary") if getattr(self, name)]
        return f"{self.heads} x {self.size}, {self.tokens} positions, {', '.join(words)}"


def draw_sizes(rng: random.Random) -> Sizes:
    """The sizes of one block, width at most 512."""
    while True:
        heads, size = rng.choice((1, 2, 3, 4, 6, 8, 12, 16)), rng.choice((8, 16, 24, 32, 48, 64))
        if heads * size <= 512:
            break
    flags = (rng.random() < 0.5 for _ in range(3))
    return Sizes(heads, size, rng.choice((8, 12, 16)), *flags, rng.choice((1 / 3, 1.0)))


def rotated(x: Tensor) -> Tensor:
    """Rotary positions: pairs of channels turned by angles that grow with the position."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * rates
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Block(nn.Module):
    """Embedding, attention, read-out; no biases."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.heads * sizes.size
        self.embed = nn.Linear(FEATURES, width, bias=False)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.head = nn.Linear(width, 5, bias=False)
        for layer in self.children():
            nn.init.normal_(layer.weight, std=(sizes.gain / layer.weight.shape[1]) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of one batch."""
        sizes, x = self.sizes, self.embed(x)
        q, k, v = (
            f(x).unflatten(-1, (sizes.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        if sizes.rotary:
            q, k = rotated(q), rotated(k)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=sizes.causal)
        out = self.o(mixed.transpose(1, 2).flatten(2))
        pooled = out.mean(1) if not sizes.token else out[:, -1] if sizes.causal else out[:, 0]
        scores: Tensor = self.head(pooled)
        return scores


def make(index: int, seed: int = 0) -> tuple[Block, Tensor, Sizes]:
    """One block with its inputs.

    Example:
        >>> block, x, sizes = make(0)
        >>> block(x).shape
        torch.Size([1, 5])
    """
    sizes = draw_sizes(random.Random(f"{seed} {index}"))
    torch.manual_seed(index)
    return Block(sizes), torch.randn(1, sizes.tokens, FEATURES), sizes


@dataclass(frozen=True)
class Row:
    """One block: nu by draws and in closed form."""

    index: int
    title: str
    gain: float
    drawn: float
    stderr: float
    closed: float

    @property
    def error(self) -> float:
        """Relative error of the closed form."""
        return self.closed / self.drawn - 1.0


def measure(index: int, seed: int, draws: int) -> Row:
    """Nu of one block, both ways."""
    block, x, sizes = make(index, seed)
    drawn = cerewrite.analyze(block, x, estimator="monte-carlo", draws=draws, seed=DRAWS_SEED).nu
    closed = cerewrite.analyze(block, x, estimator="analytic").nu
    return Row(index, sizes.title, sizes.gain, drawn.value, drawn.stderr or 0.0, closed.value)


def section(rows: Sequence[Row], settings: str) -> str:
    """The part of the document."""
    errors = [abs(row.error) for row in rows]
    known = median(row.stderr / row.drawn for row in rows)
    lines = [
        BEGIN,
        "## Attention",
        "",
        f"Written by `python -m benchmarks.attention`; {settings}. nu of one attention block with",
        "embedding and read-out, in closed form against draws (standard error in brackets,",
        f"{known:.1%} in the median).",
        "",
        f"{len(rows)} blocks: error {median(errors):.1%} in the median, "
        f"{sum(error <= 0.1 for error in errors)} within 10 %, {max(errors):.0%} at most.",
        "",
        "| heads | gain | draws | closed form | error |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row.title} | {row.gain:.2f} | {row.drawn:.4f} ({row.stderr:.4f}) "
            f"| {row.closed:.4f} | {row.error:+.0%} |"
            for row in rows
        ),
        "",
        END,
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure what the store does not hold, and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--draws", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("build/attention.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [Row(**line) for line in read_lines(options.store)]
    for index in range(len(rows), options.blocks):
        rows.append(measure(index, options.seed, options.draws))
        add_line(options.store, asdict(rows[-1]))
        print(rows[-1], f"error {rows[-1].error:+.2f}", flush=True)
    settings = f"seed {options.seed}, {options.draws} draws"
    text = placed(DOCUMENT.read_text(encoding="utf-8"), section(rows, settings), BEGIN, END)
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
