"""docs/RESNET50.md from the kernels and estimates of `benchmarks.resnet_designs`.

python -m benchmarks.resnet_report
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.resnet_designs import BATCH, DESIGNS, NAMES, STORE, read
from cerewrite.estimators.draws import log_variance, relative_variance

DOCUMENT = STORE.with_name("RESNET50.md")
RESAMPLED = 1000
LABELS = {"analytic": "closed form, rho = 1", "spatial": "spatial", "jackknife": "jackknife"}
MEASURES = {"nu": relative_variance, "Var[log K]": log_variance}
HEAD = """# Designs of ResNet-50, ranked

Written by `python -m benchmarks.resnet_designs`, then `python -m benchmarks.resnet_report`.
ResNet-50 at 64 pixels, batch norm in training mode, {batch} examples of white noise, He gain, NTK
parametrisation. Bottlenecks of m members of width n (first stage). {draws} draws of each design;
nu spans a factor of {span:.1f}, its median standard error is {noise:.0%}. In brackets: standard
errors; the jackknife's are of {jackknife} draws. Estimators' nu is `prod(1 + kappa) - 1`.

The designs' total widths are spread over the range on purpose: pairs of one total width (4 x 16
and 1 x 64, say) differ by less than these draws resolve, and are left out. So the total width
alone ranks these designs as well as any estimator; how far the estimators' levels are from
Monte-Carlo's is the harder question, and stands beside the correlations.
"""

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Study:
    """What was measured.

    Attributes:
        names: ``m x n`` of every design.
        kernels: its Monte-Carlo kernels, ``[designs, draws]``.
        values: nu by every estimator, ``[designs]`` each.
        errors: standard errors of those.
        draws: the jackknife's draws.
    """

    names: tuple[str, ...]
    kernels: np.ndarray
    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    draws: int


def study(found: dict[str, Any]) -> Study:
    """As many draws as every design has."""
    names = tuple(f"{m} x {n}" for m, n in DESIGNS)
    draws = min(len(found[name]["kernels"]) for name in names)
    kernels = np.array([found[name]["kernels"][:draws] for name in names])
    values, errors = (
        {by: np.array([found[name][by][part] for name in names]) for by in NAMES}
        for part in ("nu", "error")
    )
    jack = min(found[name]["jackknife"]["draws"] for name in names)
    return Study(names, kernels, values, errors, jack)


def nu(kernels: np.ndarray) -> np.ndarray:
    """Relative variances, ``[..., draws]`` to ``[...]``."""
    variances: np.ndarray = kernels.var(-1, ddof=1) / kernels.mean(-1) ** 2
    return variances


def spread(kernels: np.ndarray) -> np.ndarray:
    """Var[log K], likewise."""
    variances: np.ndarray = np.log(kernels).var(-1, ddof=1)
    return variances


STATISTICS: dict[str, Statistic] = {"nu": nu, "Var[log K]": spread}


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of values without ties.

    >>> spearman(np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0, 9.0]))
    1.0
    """
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return round(float(np.corrcoef(*ranks)[0, 1]), 12)


def interval(found: Study, name: str, statistic: Statistic) -> tuple[float, float]:
    """90 % of the correlation over resampled draws, the estimator's own error included."""
    rng = np.random.default_rng(0)
    draws, rows = found.kernels.shape[1], []
    for _ in range(RESAMPLED):
        picked = rng.integers(0, draws, draws)
        noise = found.errors[name] * rng.standard_normal(len(found.names))
        rows.append(spearman(found.values[name] + noise, statistic(found.kernels[:, picked])))
    low, high = np.quantile(rows, [0.05, 0.95])
    return float(low), float(high)


def halves(found: Study, statistic: Statistic) -> np.ndarray:
    """Correlations of one half of the draws with the other, over random halves."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(RESAMPLED):
        order = rng.permutation(found.kernels.shape[1])
        one, other = np.array_split(found.kernels[:, order], 2, axis=1)
        rows.append(spearman(statistic(one), statistic(other)))
    return np.array(rows)


def table(found: Study) -> list[str]:
    """One line per design."""
    lines = [
        "| m x n | m n | nu, Monte-Carlo | Var[log K] | closed form | spatial | jackknife |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for at, (name, (m, n)) in enumerate(zip(found.names, DESIGNS, strict=True)):
        measured = [measure(found.kernels[at]) for measure in MEASURES.values()]
        cells = [f"{ratio.value:.4f} ({ratio.stderr:.4f})" for ratio in measured]
        cells += [f"{found.values[by][at]:.4f}" for by in ("analytic", "spatial")]
        cells.append(f"{found.values['jackknife'][at]:.4f} ({found.errors['jackknife'][at]:.4f})")
        lines.append(f"| {name} | {m * n} | " + " | ".join(cells) + " |")
    return lines


def correlations(found: Study) -> list[str]:
    """One line per estimator, and the noise's own ceiling."""
    lines = [
        "| | with nu | with Var[log K] | estimate / nu: median, least to largest |",
        "| --- | --- | --- | --- |",
    ]
    measured = nu(found.kernels)
    for name, label in LABELS.items():
        cells = []
        for statistic in STATISTICS.values():
            low, high = interval(found, name, statistic)
            value = spearman(found.values[name], statistic(found.kernels))
            cells.append(f"{value:.3f} [{low:.3f}, {high:.3f}]")
        over = found.values[name] / measured
        cells.append(f"{np.median(over):.2f}, {over.min():.2f} to {over.max():.2f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    width = np.array([-float(m * n) for m, n in DESIGNS])
    plain = [spearman(width, of(found.kernels)) for of in STATISTICS.values()]
    lines.append("| 1 / (m n), no estimator | " + " | ".join(f"{v:.3f}" for v in plain) + " | |")
    cells = []
    for statistic in STATISTICS.values():
        low, middle, high = np.quantile(halves(found, statistic), [0.05, 0.5, 0.95])
        cells.append(f"{middle:.3f} [{low:.3f}, {high:.3f}]")
    lines.append("| one half of the draws with the other | " + " | ".join(cells) + " | |")
    return lines


def document(found: Study) -> str:
    """The whole of RESNET50.md."""
    measured, draws = nu(found.kernels), found.kernels.shape[1]
    ratios = [relative_variance(row) for row in found.kernels]
    noise = np.median([ratio.stderr / ratio.value for ratio in ratios])
    head = HEAD.format(
        batch=BATCH,
        draws=draws,
        span=measured.max() / measured.min(),
        noise=noise,
        jackknife=found.draws,
    )
    lines = [
        head,
        *table(found),
        "",
        "## Spearman's correlation",
        "",
        "In brackets 90 % over resampled draws and the estimator's own error. Resampling adds the",
        "draws' noise a second time, so that intervals reach too low. The last line is what the",
        "noise allows: half of the draws against the other half, median and 90 % of random halves.",
        "",
        *correlations(found),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the document."""
    DOCUMENT.write_text(document(study(read())), encoding="utf-8")


if __name__ == "__main__":
    main()
