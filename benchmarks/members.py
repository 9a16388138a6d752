"""Members that can be asked against one network, on digits; writes docs/MEMBERS.md.

    python -m benchmarks.members [--seeds 10] [--no-run]

The protocol and the predictions stand in docs/MEMBERS.md above the results and were committed
before the first run. Results go to benchmarks/members.jsonl, a line per seed and contender; a run
that was broken off goes on from there. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import cerewrite
from benchmarks.lines import add_line, read_lines
from cerewrite.training.assess import bins, expected_calibration_error
from cerewrite.training.uncertainty import fit_temperature
from examples.members.plain_loop import build_model

MEMBERS, EPOCHS, BATCH, RATE = 4, 20, 64, 1e-3
TRAIN, VALIDATION = 1000, 197
T95 = {9: 2.262, 4: 2.776, 2: 4.303, 1: 12.706}
"""97.5 % quantiles of Student's t, by degrees of freedom."""

ROOT = Path(__file__).parent
STORE, DOCUMENT = ROOT / "members.jsonl", ROOT.parent / "docs" / "MEMBERS.md"
MARK = "<!-- results: written by python -m benchmarks.members -->\n"

Run = dict[str, Any]
Loss = Callable[[Tensor, Tensor], Tensor]


class Data:
    """Standardised digits: training, validation and test images, and the shifted test images."""

    def __init__(self, seed: int, epochs: int) -> None:
        held = load_digits()
        draw = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(held.data), generator=draw)
        x = torch.tensor(held.data, dtype=torch.float32)[order]
        self.x, self.y = (x - x.mean()) / x.std(), torch.tensor(held.target)[order]
        self.epochs = epochs
        self.train = slice(0, TRAIN)
        self.validation = slice(TRAIN, TRAIN + VALIDATION)
        self.test = slice(TRAIN + VALIDATION, None)
        test = self.x[self.test]
        pixels = torch.randperm(64, generator=draw)
        self.shifts = {
            "rotation": torch.rot90(test.view(-1, 8, 8), 1, (1, 2)).reshape(-1, 64),
            "noise": test + torch.randn(test.shape, generator=draw),
            "permutation": test[:, pixels],
        }


def fit(module: nn.Module, loss: Loss, data: Data, seed: int) -> float:
    """Train with Adam; the median seconds of a step."""
    torch.manual_seed(seed)
    optimiser = torch.optim.Adam(module.parameters(), RATE)
    x, y = data.x[data.train], data.y[data.train]
    seconds = []
    module.train()
    for _ in range(data.epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            start = time.perf_counter()
            optimiser.zero_grad()
            loss(module(x[batch]), y[batch]).backward()
            optimiser.step()
            seconds.append(time.perf_counter() - start)
    module.eval()
    return statistics.median(seconds)


def figures(ask: Callable[[Tensor], Tensor], data: Data) -> Run:
    """All figures of a contender; ``ask`` gives members' logits ``[m, batch, classes]``."""
    with torch.no_grad():
        held, test = ask(data.x[data.validation]), ask(data.x[data.test])
        shifted = {name: ask(x) for name, x in data.shifts.items()}
    labels = data.y[data.test]
    temperature = fit_temperature(held.mean(0), data.y[data.validation])
    found: Run = {"temperature": temperature}
    for suffix, divisor in (("", 1.0), ("_T", temperature)):
        scores = (test.double().mean(0) / divisor).log_softmax(-1)
        right = scores.argmax(-1) == labels
        found[f"nll{suffix}"] = float(nn.functional.nll_loss(scores, labels))
        calibration = bins(scores.exp().amax(-1), right)
        found[f"ece{suffix}"] = expected_calibration_error(calibration)
    found["accuracy"] = float(right.double().mean())
    found["alone"] = float((test.argmax(-1) == labels).double().mean())
    known = entropy(test)
    for name, outputs in shifted.items():
        truth = [0] * len(known) + [1] * outputs.shape[1]
        found[f"auroc_{name}"] = float(roc_auc_score(truth, [*known, *entropy(outputs)]))
    return found


def entropy(outputs: Tensor) -> list[float]:
    """Entropy of the members' mean probabilities, per example, in nats."""
    own: Tensor = torch.special.entr(outputs.double().softmax(-1).mean(0)).sum(-1)
    return list(own.tolist())


def single(data: Data, seed: int) -> Run:
    """One network."""
    torch.manual_seed(seed)
    net = build_model()
    seconds = fit(net, nn.CrossEntropyLoss(), data, seed)
    count = sum(p.numel() for p in net.parameters())
    return {"seconds": seconds, "params": count, **figures(lambda x: net(x)[None], data)}


def mixed(share: float) -> Callable[[Data, int], Run]:
    """Four members in one model, trained with a share of the mean's loss."""

    def run(data: Data, seed: int) -> Run:
        torch.manual_seed(seed)
        model = cerewrite.convert(build_model(), data.x[:2], members=MEMBERS, seed=seed).model
        asked = cerewrite.members(model)
        seconds = fit(asked, cerewrite.MemberLoss(nn.CrossEntropyLoss(), share), data, seed)
        count = sum(p.numel() for p in model.parameters())
        return {"seconds": seconds, "params": count, **figures(asked, data)}

    return run


def separate(data: Data, seed: int) -> Run:
    """Four narrow networks trained one after another: a deep ensemble of the same size."""
    plan = cerewrite.plan(
        cerewrite.analyze(build_model(), data.x[:2], scope="network"), members=MEMBERS
    )
    widths = (64, *plan.splits[0].widths)
    nets, seconds = [], 0.0
    for index in range(MEMBERS):
        torch.manual_seed(1000 * seed + index)
        layers: list[nn.Module] = []
        for pair in pairwise(widths):
            layers += [nn.Linear(*pair), nn.ReLU()]
        nets.append(nn.Sequential(*layers, nn.Linear(widths[-1], 10)))
        seconds += fit(nets[-1], nn.CrossEntropyLoss(), data, 1000 * seed + index)
    count = sum(p.numel() for net in nets for p in net.parameters())
    asked = figures(lambda x: torch.stack([net(x) for net in nets]), data)
    return {"seconds": seconds, "params": count, **asked}


CONTENDERS: dict[str, Callable[[Data, int], Run]] = {
    "single": single,
    "share 1": mixed(1.0),
    "share 1/2": mixed(0.5),
    "share 0": mixed(0.0),
    "separate": separate,
}


def cnn() -> nn.Module:
    """Six convolutions of 32 to 128 channels with batch norm, on 28x28 images."""
    layers: list[nn.Module] = []
    before = 1
    for index, width in enumerate((32, 32, 64, 64, 128, 128)):
        stride = 2 if index in (2, 4) else 1
        layers += [nn.Conv2d(before, width, 3, padding=1, stride=stride, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def seconds_of(module: nn.Module, loss: Loss | None, x: Tensor, y: Tensor) -> float:
    """Processor seconds of one forward, or of a forward and backward with a loss."""
    start = time.process_time()
    with torch.set_grad_enabled(loss is not None):
        output = module(x)
        if loss is not None:
            loss(output, y).backward()
    return time.process_time() - start


def cost(name: str, net: nn.Module, x: Tensor, rounds: int = 30) -> Run:
    """Ratios of processor time, medians of interleaved pairs: forwards, and training steps.

    Processor time, because the machine of the study is shared; one thread.
    """
    model = cerewrite.convert(net, x[:2], members=MEMBERS).model
    asked, y = cerewrite.members(model), torch.randint(10, (len(x),))
    whole, own = nn.CrossEntropyLoss(), cerewrite.MemberLoss(nn.CrossEntropyLoss(), 0.5)
    pairs: dict[str, list[float]] = {"outputs": [], "step": []}
    for index in range(rounds):
        turn = 1 if index % 2 else -1  # who runs first finds a colder cache
        model.eval()
        times = {module: seconds_of(module, None, x, y) for module in (model, asked)[::turn]}
        pairs["outputs"].append(times[asked] / times[model])
        model.train()
        steps = ((net.train(), whole), (asked, own))
        times = {module: seconds_of(module, loss, x, y) for module, loss in steps[::turn]}
        pairs["step"].append(times[asked] / times[net])
    figures = {key: round(statistics.median(found), 3) for key, found in pairs.items()}
    return {"seed": -1, "contender": f"cost {name}", "batch": len(x), **figures}


def measure(seeds: int, epochs: int) -> None:
    """Run what is missing, a line per run."""
    done = {
        (run["seed"], run["contender"]) for run in read_lines(STORE) if epochs_of(run) == epochs
    }
    for name, net, shape in (("MLP", build_model(), (256, 64)), ("CNN", cnn(), (64, 1, 28, 28))):
        if epochs == EPOCHS and (-1, f"cost {name}") not in done:
            add_line(STORE, cost(name, net, torch.randn(shape)))
    for seed in range(seeds):
        data = Data(seed, epochs)
        for name, contender in CONTENDERS.items():
            if (seed, name) in done:
                continue
            run = {"seed": seed, "contender": name, "epochs": epochs}
            add_line(STORE, {**run, **contender(data, seed)})


def epochs_of(run: Run) -> int:
    """How long a run trained; the first ones do not say."""
    return int(run.get("epochs", EPOCHS))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (Student's t)."""
    count = len(values)
    spread = statistics.stdev(values) / math.sqrt(count) if count > 1 else math.inf
    return statistics.fmean(values), T95.get(count - 1, 1.96) * spread


def compared(by: dict[str, list[Run]], field: str, name: str) -> str:
    """Ratio of a contender's figure to the single network's, paired by seed, geometric mean."""
    pairs = zip(by[name], by["single"], strict=True)
    logs = [math.log(max(a[field], 1e-9) / max(b[field], 1e-9)) for a, b in pairs]
    mean, half = interval(logs)
    return f"{math.exp(mean):.2f} [{math.exp(mean - half):.2f}, {math.exp(mean + half):.2f}]"


COLUMNS = (
    ("accuracy", "accuracy"), ("one member", "alone"), ("NLL", "nll"), ("ECE", "ece"),
    ("NLL at T", "nll_T"), ("ECE at T", "ece_T"), ("rotation", "auroc_rotation"),
    ("noise", "auroc_noise"), ("permutation", "auroc_permutation"),
)  # fmt: skip


def results(runs: Sequence[Run], epochs: int) -> list[str]:
    """Tables of all runs that trained so long."""
    runs = [run for run in runs if epochs_of(run) == epochs]
    by = {n: [r for r in runs if r["contender"] == n] for n in CONTENDERS}
    seeds = min(len(found) for found in by.values())
    by = {name: sorted(found, key=lambda r: r["seed"])[:seeds] for name, found in by.items()}
    lines = [f"\n## Results at {epochs} epochs, {seeds} seeds\n"]
    lines.append("| | " + " | ".join(title for title, _ in COLUMNS) + " |")
    lines.append("| --- " * (len(COLUMNS) + 1) + "|")
    for name, found in by.items():
        cells = [interval([run[field] for run in found]) for _, field in COLUMNS]
        texts = [f"{mean:.3f} +- {half:.3f}" for mean, half in cells]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    params = {name: found[0]["params"] for name, found in by.items()}
    lines.append(f"\nParameters: {', '.join(f'{n} {p:,}' for n, p in params.items())}. ")
    lines.append("Ratios to the single network, paired by seed, geometric means:\n")
    lines.append("| | NLL | ECE | NLL at T | ECE at T |")
    lines.append("| --- | --- | --- | --- | --- |")
    for name in list(CONTENDERS)[1:]:
        fields = ("nll", "ece", "nll_T", "ece_T")
        lines.append(f"| {name} | {' | '.join(compared(by, f, name) for f in fields)} |")
    lines.append("\nDifferences from the single network, paired by seed:\n")
    lines.append("| | accuracy | rotation | noise | permutation |")
    lines.append("| --- | --- | --- | --- | --- |")
    for name in list(CONTENDERS)[1:]:
        cells = []
        for field in ("accuracy", "auroc_rotation", "auroc_noise", "auroc_permutation"):
            pairs = zip(by[name], by["single"], strict=True)
            mean, half = interval([a[field] - b[field] for a, b in pairs])
            cells.append(f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def write() -> None:
    """Put the results below the protocol."""
    runs = read_lines(STORE)
    times = sorted({epochs_of(run) for run in runs if run["seed"] >= 0})
    lines = [line for epochs in times for line in results(runs, epochs)]
    lines.append(
        "\nProcessor time, one thread, medians of 30 interleaved pairs: the members' outputs"
    )
    lines.append("against the same model's forward, and a training step (forward, backward; Adam")
    lines.append("not counted) with `MemberLoss` against the original network's:\n")
    lines.append("| | batch | members' outputs / forward | step / original's step |")
    lines.append("| --- | --- | --- | --- |")
    for run in runs:
        if run["contender"].startswith("cost "):
            name = run["contender"].removeprefix("cost ")
            lines.append(f"| {name} | {run['batch']} | {run['outputs']:.2f} | {run['step']:.2f} |")
    before = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[0]
    DOCUMENT.write_text(before + MARK + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--no-run", action="store_true", help="write what has been measured")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.no_run:
        measure(given.seeds, given.epochs)
    write()


if __name__ == "__main__":
    main()
