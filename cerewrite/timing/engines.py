"""The engines that can run a model: PyTorch eager, torch.compile, ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from cerewrite.errors import ExportError
from cerewrite.ir.inputs import Inputs
from cerewrite.runtime.modes import called
from cerewrite.timing.calls import TrainingStep

Call = Callable[[], object]
Bind = Callable[[Inputs], Call]
"""Inputs in, what runs the prepared model on them out."""


class EngineRefusal(Exception):
    """This engine cannot run this model here; the text says why."""


def eager(model: nn.Module, example: Inputs, stack: ExitStack) -> Bind:
    """The module itself, without gradients."""

    def bind(inputs: Inputs) -> Call:
        def run() -> object:
            with torch.inference_mode():
                return called(model, inputs)

        return run

    return bind


def compiled(model: nn.Module, example: Inputs, stack: ExitStack) -> Bind:
    """``torch.compile`` with its default backend, compiled before the first run."""
    torch._dynamo.reset()
    fast = eager(torch.compile(model), example, stack)  # type: ignore[arg-type]

    def bind(inputs: Inputs) -> Call:
        run = fast(inputs)
        try:
            run()
        except Exception as error:  # whatever a backend or its compiler raises is the reason
            raise EngineRefusal(f"torch.compile fails: {type(error).__name__}: {error}") from error
        return run

    return bind


def onnx_runtime(model: nn.Module, example: Inputs, stack: ExitStack) -> Bind:
    """The exported file in ONNX Runtime, on the CPU; parity is proved on the way."""
    from cerewrite.exporter import ExampleInputs, Runner, export_onnx

    folder = stack.enter_context(tempfile.TemporaryDirectory())
    file = Path(folder, "model.onnx")
    try:
        export_onnx(model, file, example, batches=(2,))
        runner = Runner(file)
    except ExportError as error:
        raise EngineRefusal(f"no ONNX file: {error}") from error

    def bind(inputs: Inputs) -> Call:
        feed = runner.feed(ExampleInputs.of(model, inputs), inputs, file.name)
        return lambda: runner.run(feed)

    return bind


def training_step(model: nn.Module, example: Inputs, stack: ExitStack) -> Bind:
    """Forward and backward of a copy in training mode, in eager; without an optimiser."""

    def bind(inputs: Inputs) -> Call:
        try:
            run = TrainingStep.of(model, 1).whole(model, lambda built: called(built, inputs))
            run()
        except (RuntimeError, ValueError) as error:  # batch norms refuse single values so
            raise EngineRefusal(f"a training step fails: {error}") from error
        return run

    return bind


ENGINES: Mapping[str, Callable[[nn.Module, Inputs, ExitStack], Bind]] = {
    "eager": eager,
    "compile": compiled,
    "onnxruntime": onnx_runtime,
    "step": training_step,
}
