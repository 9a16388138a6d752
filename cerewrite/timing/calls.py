"""What is timed of a call: its forward pass alone, or forward and backward as training runs it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.runtime.trees import tensors

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Member widths at which interior layers are timed."""

STEP_WIDTHS = (4, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024)
"""Those of training steps, which are timed for every plan that holds them."""

STEP_WORK = 5e7
"""FLOPs of one timed step of a layer on a CPU, about: beyond it fewer examples are timed, and
the time is scaled by their number."""


@dataclass(frozen=True, slots=True)
class Forward:
    """A call in evaluation mode without gradients, in float32 on the CPU.

    Attributes:
        batch: examples per call.
    """

    batch: int
    widths: tuple[int, ...] = WIDTHS
    prefix: str = ""
    quick: bool = False

    def rows(self, flops: float) -> int:
        """Examples that are timed at once, of a layer of so many FLOPs per example."""
        return self.batch

    def context(self) -> AbstractContextManager[object]:
        """In which calls are prepared and run."""
        return torch.inference_mode()

    def action(
        self, call: Callable[[Tensor], object], shape: tuple[int, ...], *, learns: bool = True
    ) -> Callable[[], object]:
        """What to time: the call on a drawn input."""
        x = torch.randn(shape)
        return lambda: call(x)


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Forward and backward in training mode, as the model's own parameters lie.

    Attributes:
        batch: examples per training step.
        device: where the parameters are.
        dtype: their type.
        channels_last: whether the weights of convolutions lie so.
    """

    batch: int
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    widths: tuple[int, ...] = STEP_WIDTHS
    quick: bool = True

    @classmethod
    def of(cls, model: nn.Module, batch: int) -> TrainingStep:
        """The step of a model whose parameters are all on one device."""
        floating = [p for p in model.parameters() if p.is_floating_point()]
        first = floating[0] if floating else torch.zeros(())
        images = [p for p in floating if p.dim() == 4 and p.shape[1] > 1 and p[0, 0].numel() > 1]
        last = bool(images) and all(
            p.is_contiguous(memory_format=torch.channels_last) for p in images
        )
        return cls(batch, first.device, first.dtype, last)

    @property
    def prefix(self) -> str:
        """What tells the times of one setting from those of another."""
        where = str(self.device.type)
        if self.device.type == "cuda":
            where = f"cuda {torch.cuda.get_device_name(self.device)}"
        layout = "channels last" if self.channels_last else "contiguous"
        return f"step {where} {self.dtype} {layout} | "

    def rows(self, flops: float) -> int:
        """Examples that are timed at once, of a layer of so many FLOPs per example."""
        if self.device.type != "cpu":
            return self.batch
        return min(self.batch, max(2, int(STEP_WORK / max(3.0 * flops, 1.0))))

    def context(self) -> AbstractContextManager[object]:
        """In which calls are prepared and run: with gradients."""
        return nullcontext()

    def action(
        self, call: Callable[[Tensor], object], shape: tuple[int, ...], *, learns: bool = True
    ) -> Callable[[], object]:
        """What to time: forward and backward on a drawn input.

        Args:
            call: a module, which is copied, or a function.
            shape: the input's.
            learns: whether the input needs a gradient, as all but a model's own do.
        """
        x = torch.randn(shape, device=self.device, dtype=self.dtype)
        if self.channels_last and x.dim() == 4:
            x = x.to(memory_format=torch.channels_last)
        x.requires_grad_(learns)
        if isinstance(call, nn.Module):
            call = self._at_home(copy.deepcopy(call).train())
        inner = call
        if getattr(call, "inplace", False):
            return self._stepping(lambda: inner(x.clone()), call)
        return self._stepping(lambda: inner(x), call)

    def whole(self, model: nn.Module, forward: Callable[[nn.Module], Any]) -> Callable[[], object]:
        """A training step of a copy of the whole model.

        Args:
            model: the model; it is only read.
            forward: calls a module on its inputs.
        """
        built = copy.deepcopy(model).train()
        return self._stepping(lambda: forward(built), built)

    def _at_home(self, module: nn.Module) -> nn.Module:
        module = module.to(self.device, self.dtype)
        if self.channels_last:
            for parameter in module.parameters():
                if parameter.dim() == 4:
                    parameter.data = parameter.data.to(memory_format=torch.channels_last)
        return module

    def _stepping(self, forward: Callable[[], Any], owner: object) -> Callable[[], object]:
        parameters = list(owner.parameters()) if isinstance(owner, nn.Module) else []

        def run() -> None:
            outputs = [y for y in tensors(forward()) if y.requires_grad]
            if outputs:
                torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs])
            for parameter in parameters:
                parameter.grad = None
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return run


Timed = Forward | TrainingStep
