"""What a conversion of a large model needs in memory, under a hard limit.

    python -m benchmarks.memory [NAME ...]        # writes nothing; a minute to an hour a model

Each model is built twice, in processes of their own: one runs a step of AdamW at batch 2 and notes
what that takes, model included; the other converts, verification included, and may have three
times the model's size and what the step took (`RLIMIT_DATA`), beyond what the interpreter has
after its imports. Prints both peaks as multiples of the model's size; the exit code says whether
every conversion stayed within. The models of torchvision and timm need both installed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

import cerewrite
from benchmarks.zoo.catalogue import Entry
from benchmarks.zoo.sources import declare_operators
from benchmarks.zoo.subject import build
from cerewrite.runtime.trees import tensors

TIMES = 3
"""Sizes of the model that a conversion may take beyond one training step."""
WIDTH, LAYERS = 8192, 15


def dense() -> tuple[nn.Module, Any]:
    """A perceptron of 1,007 million parameters, and a batch of 2."""
    hidden = [m for _ in range(LAYERS) for m in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, 10)), torch.randn(2, WIDTH)


def zoo(name: str) -> Callable[[], tuple[nn.Module, Any]]:
    """A model of the zoo and its example inputs of batch 2."""

    def make() -> tuple[nn.Module, Any]:
        declare_operators()
        model, inputs, _ = build(Entry(name, name.split("/")[0], ""))
        return model, inputs

    return make


MODELS: Mapping[str, Callable[[], tuple[nn.Module, Any]]] = {
    name: zoo(name)
    for name in (
        "timm/efficientformer_l7", "torchvision/convnext_large", "torchvision/vit_l_16",
        "torchvision/regnet_y_128gf",
    )
} | {"dense": dense}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """What one process saw: bytes of the model, most bytes beyond the imports, seconds, words."""

    size: int
    peak: int
    seconds: float
    said: str


def step(model: nn.Module, inputs: Any) -> str:
    """One step of AdamW, on the mean square of all outputs."""
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    optimizer = torch.optim.AdamW(model.parameters())
    outputs = tensors(model.train()(*inputs))
    loss = sum((out.square().mean() for out in outputs if out.requires_grad), torch.zeros(()))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return "step"


def convert(model: nn.Module, inputs: Any) -> str:
    """By the verb that users call: all costs held but the time of a step, which is not timed."""
    result = cerewrite.convert(
        model, inputs, scope="auto", estimator="analytic", gain="nonzero",
        budget=["params", "flops", "memory"], allow="step", widths="free", min_gain=0.0,
    )  # fmt: skip
    return f"{len(result.plan.splits)} splits, {len(result.verification.checks)} checks passed"


def field(name: str) -> int:
    """A number of bytes that the system states of this process."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return 1024 * int(lines[name].split()[0])


def serve(sender: Connection, name: str, work: Callable[..., str], limit: int | None) -> None:
    """In a process of its own: build, work, and say what it took."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    base = field("VmRSS")
    if limit is not None:
        most = field("VmData") + limit
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    model, inputs = MODELS[name]()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    start = time.perf_counter()
    try:
        said = work(model, inputs)
    except Exception as error:
        said = f"FAILED: {type(error).__name__}: {str(error)[:200]}"
    sender.send(Found(size, field("VmHWM") - base, time.perf_counter() - start, said))


def apart(name: str, work: Callable[[nn.Module, Any], str], limit: int | None) -> Found:
    """Run `serve` in a fresh process.

    Raises:
        EOFError: if it ended without a word, as by the system's own killer.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(sender, name, work, limit))
    process.start()
    sender.close()
    found: Found = receiver.recv()
    process.join()
    return found


def main() -> int:
    """Print a line a model; 0 if every conversion stayed within its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], help="all by default")
    wrong = 0
    for name in parser.parse_args().names or MODELS:
        trained = apart(name, step, None)
        size = trained.size
        limit = TIMES * size + trained.peak
        found = apart(name, convert, limit)
        wrong += found.said.startswith("FAILED")
        print(
            f"{name:28} {size / 1e9:5.2f} GB  step {trained.peak / size:5.2f}  "
            f"conversion {found.peak / size:5.2f} of {limit / size:5.2f} allowed  "
            f"{found.seconds:6.0f} s  {found.said}",
            flush=True,
        )
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
