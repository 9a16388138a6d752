"""The sign kernel's closed form against draws of it; writes docs/SIGN.md.

    python -m benchmarks.sign

Dense ReLU chains of depth 3 to 16 and width 6 to 32, 12,000 draws of a member; ensembles of up to
40 members are resampled from them. A minute or two.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cerewrite.ir import Design, Site
from cerewrite.planning.measures import MEASURES

Array = NDArray[np.float64]
DEPTHS = (3, 6, 10, 16)
WIDTHS = (6, 8, 12, 16, 24, 32)
MEMBERS = (1, 2, 4, 8, 16, 40)
DRAWS = 12_000
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "SIGN.md"


@dataclass(frozen=True)
class Cell:
    """One chain and number of members.

    Attributes:
        depth: hidden layers.
        width: their units, and the input's.
        members: members of the ensemble.
        drawn: Var[log K1] of the draws.
        stderr: its standard error, of the draws of an ensemble.
        closed: the measure.
        plain: ``4 V(S_0 / 4, m)`` with ``S_0 = log(1 + nu)`` of K.
    """

    depth: int
    width: int
    members: int
    drawn: float
    stderr: float
    closed: float
    plain: float


def relu_sites(depth: int) -> tuple[Site, ...]:
    """The sites of a ReLU chain (docs/theory.md, section 4)."""
    share = 1.0 / (depth + 1)
    return tuple(
        Site(f"l{i}", 0, (depth - i) * share, (i + 1) * share, 5.0, 5.0, 1.0) for i in range(depth)
    )


def sqrt_sign_kernels(width: int, depth: int, draws: int, seed: int) -> Array:
    """sqrt(K1) of random ReLU chains of one width, NTK parametrisation, scalar output.

    Args:
        width: units of every layer and of the input.
        depth: hidden layers.
        draws: initialisations.
        seed: of the generator.

    Returns:
        ``[draws]``; 0 where all units of a layer are dead.
    """
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(width, generator=rng)
    x *= math.sqrt(width) / float(x.norm())
    parts = [_batch(x, depth, min(3000, draws - at), rng) for at in range(0, draws, 3000)]
    return np.asarray(torch.cat(parts).numpy())


def _batch(x: torch.Tensor, depth: int, draws: int, rng: torch.Generator) -> torch.Tensor:
    width = len(x)
    values, weights = [x.expand(draws, width)], []
    for _ in range(depth):
        weight = torch.randn(draws, width, width, generator=rng) * math.sqrt(2.0 / width)
        weights.append(weight)
        values.append(torch.bmm(weight, values[-1].unsqueeze(2)).squeeze(2).relu())
    # |dW|_1 = |a|_1 |delta|_1 for a dense layer and one input (equation 39).
    scale = width**-0.5
    total = scale * values[-1].abs().sum(1).double()
    delta = torch.randn(draws, width, generator=rng) * scale * (values[-1] > 0)
    for layer in range(depth - 1, -1, -1):
        total += scale * values[layer].abs().sum(1).double() * delta.abs().sum(1).double()
        if layer:
            delta = torch.bmm(weights[layer].mT, delta.unsqueeze(2)).squeeze(2)
            delta *= values[layer] > 0
    return total


def spread(members: Array, multiplicity: int, seed: int) -> tuple[float, float]:
    """Var[log K1] of ensembles resampled from members' sqrt(K1), with its standard error.

    Ensembles whose members are all dead are left out.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(members), (len(members), multiplicity))
    roots = members if multiplicity == 1 else members[chosen].mean(axis=1)
    logs = 2.0 * np.log(roots[roots > 0.0])
    squares = (logs - logs.mean()) ** 2
    return float(squares.mean()), float(squares.std() / math.sqrt(len(squares)))


def study(draws: int = DRAWS) -> list[Cell]:
    """Every cell of the grid."""
    cells = []
    sign, nu = MEASURES["sign-variance"], MEASURES["nu"]
    for depth in DEPTHS:
        sites = relu_sites(depth)
        for width in WIDTHS:
            roots = sqrt_sign_kernels(width, depth, draws, seed=0)
            plain = math.log1p(nu.region(sites, Design(1, [width])))
            for m in MEMBERS:
                flat = sign.score(np.array([[0.0, plain, plain]]), np.array([m]))
                closed = sign.region(sites, Design(m, [width]))
                drawn, error = spread(roots, m, seed=1)
                cells.append(Cell(depth, width, m, drawn, error, closed, float(flat[0])))
    return cells


def document(cells: Sequence[Cell]) -> str:
    """The text of docs/SIGN.md."""
    drawn = np.array([cell.drawn for cell in cells])
    lines = [
        "# The sign kernel's closed form against draws",
        "",
        "Written by `python -m benchmarks.sign`; do not edit. Var[log K1] of dense ReLU chains",
        "(docs/theory.md, section 12), NTK parametrisation, input as wide as the layers, one",
        "output.",
        "12,000 draws of a member, ensembles resampled from them; draws in which all units of",
        "a layer are dead count in ensembles and are left out where nothing else is left. Nothing",
        "in the closed form was fitted to these draws.",
        "",
        f"Over all {len(cells)} cells, median relative error (of its magnitude, and signed), the",
        "largest either way, and the rank correlation with the draws:",
        "",
        "| form | median | signed | lowest | highest | rank |",
        "| --- " * 6 + "|",
    ]
    for title, values in (
        ("`sign-variance`", [cell.closed for cell in cells]),
        ("`4 V(S_0 / 4, m)`, S_0 of K", [cell.plain for cell in cells]),
    ):
        error = np.array(values) / drawn - 1.0
        rank = np.corrcoef(np.argsort(np.argsort(values)), np.argsort(np.argsort(drawn)))[0, 1]
        lines.append(
            f"| {title} | {np.median(abs(error)):.1%} | {np.median(error):+.1%} "
            f"| {error.min():+.0%} | {error.max():+.0%} | {rank:.4f} |"
        )
    lines += ["", "Signed median per number of members and per width:", ""]
    for title, field in (("members", "members"), ("width", "width"), ("depth", "depth")):
        groups = sorted({getattr(cell, field) for cell in cells})
        medians = [
            np.median([c.closed / c.drawn - 1.0 for c in cells if getattr(c, field) == group])
            for group in groups
        ]
        lines += [
            f"| {title} | " + " | ".join(map(str, groups)) + " |",
            "| --- " * (len(groups) + 1) + "|",
            "| error | " + " | ".join(f"{value:+.1%}" for value in medians) + " |",
            "",
        ]
    lines += [
        "| depth | width | members | drawn | standard error | closed form | ratio |",
        "| --- " * 7 + "|",
    ]
    for c in cells:
        lines.append(
            f"| {c.depth} | {c.width} | {c.members} | {c.drawn:.4f} | {c.stderr:.4f} "
            f"| {c.closed:.4f} | {c.closed / c.drawn:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study and write its document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sign")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.document.write_text(document(study(options.draws)), encoding="utf-8")


if __name__ == "__main__":
    main()
