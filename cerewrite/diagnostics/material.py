"""What diagnostics look at: a private copy of a model, a batch, a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cerewrite.errors import AnalysisError, CerewriteError, UsageError, first_line
from cerewrite.ir import Inputs, TracedModel
from cerewrite.runtime.alone import alone
from cerewrite.runtime.modes import called
from cerewrite.runtime.trees import map_tensors, tensors

Loss = Callable[[Any, Any], Tensor]
"""Of a model's outputs and the targets, batch first: a scalar, the mean over the examples."""


@dataclass(frozen=True, slots=True)
class Material:
    """A model under diagnosis.

    Attributes:
        model: a private copy: dropout off, norms on the batch, every float parameter trained.
        traced: the trace of the model.
        inputs: a batch as the model takes it.
        targets: targets of the batch; None without.
        loss: the loss; None without.
        batch: examples in the batch.
        seed: of random choices.
    """

    model: nn.Module
    traced: TracedModel
    inputs: Inputs
    targets: Any
    loss: Loss | None
    batch: int
    seed: int = 0

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter with a gradient, by qualified name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def part(self, start: int, stop: int) -> Material:
        """The same model on some of the examples."""
        return replace(
            self,
            inputs=rows(self.inputs, start, stop, self.batch),
            targets=rows(self.targets, start, stop, self.batch),
            batch=stop - start,
        )

    def run(self) -> Any:
        """The model's outputs on the batch.

        Raises:
            AnalysisError: if it raises.
        """
        try:
            with alone():
                return called(self.model, self.inputs)
        except CerewriteError:
            raise
        except Exception as error:  # whatever the user's forward raises is the reason
            raise AnalysisError(
                f"the model raises on {self.batch} examples: {first_line(error)}",
                advice="give a batch that it accepts; batch norms need two or more examples",
            ) from error

    def loss_of(self, outputs: Any) -> Tensor:
        """The loss of outputs on all the examples."""
        return self._scalar(outputs, self.targets)

    def losses(self, outputs: Any) -> Iterator[Tensor]:
        """The loss of each example by itself."""
        for index in range(self.batch):
            yield self._scalar(
                rows(outputs, index, index + 1, self.batch),
                rows(self.targets, index, index + 1, self.batch),
            )

    def _scalar(self, outputs: Any, targets: Any) -> Tensor:
        assert self.loss is not None, "run.py hands targets to diagnostics that need them"
        try:
            value = self.loss(outputs, targets)
        except CerewriteError:
            raise
        except Exception as error:  # the user's own loss
            raise UsageError(
                f"the loss raises: {first_line(error)}",
                advice="give loss(outputs, targets) -> scalar, batch first",
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            kind = [*value.shape] if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(
                f"the loss gives {kind}, not a scalar", advice="average it over the examples"
            )
        if not value.requires_grad:
            raise UsageError(
                "the loss depends on no parameter", advice="compute it from the model's outputs"
            )
        if not math.isfinite(float(value.detach())):
            raise AnalysisError(
                f"the loss is {float(value.detach())}", advice="check inputs, targets and gain"
            )
        return value.reshape(())

    def gradient(self, value: Tensor, **options: Any) -> dict[str, Tensor]:
        """Gradient of a scalar by every parameter; zeros where none arrives."""
        own = self.parameters()
        found = torch.autograd.grad(value, list(own.values()), allow_unused=True, **options)
        return {
            name: torch.zeros_like(tensor) if g is None else g
            for (name, tensor), g in zip(own.items(), found, strict=True)
        }

    def layer_weights(self) -> dict[str, str]:
        """Name of the weight of every linear and convolution module, by the module's name."""
        own = self.parameters()
        kinds = (nn.Linear, nn.modules.conv._ConvNd)
        names = (n for n, m in self.model.named_modules() if isinstance(m, kinds))
        found = {name: f"{name}.weight" if name else "weight" for name in names}
        return {name: weight for name, weight in found.items() if weight in own}


def rows(tree: Any, start: int, stop: int, batch: int) -> Any:
    """Some examples of every tensor whose first axis is the batch."""

    def cut(leaf: Tensor) -> Tensor:
        return leaf[start:stop] if leaf.dim() and leaf.shape[0] == batch else leaf

    return map_tensors(cut, tree)


def float_outputs(tree: Any) -> list[Tensor]:
    """The floating-point tensors of a model's outputs that depend on parameters.

    Raises:
        AnalysisError: if there are none.
    """
    found = [leaf for leaf in tensors(tree) if leaf.is_floating_point() and leaf.requires_grad]
    if not found:
        raise AnalysisError(
            "no output depends on a parameter", advice="give a model with a floating-point output"
        )
    return found


def default_loss(outputs: Any, targets: Any) -> Tensor:
    """Cross-entropy for integer targets, mean squared error for others, of the first output.

    Raises:
        UsageError: if classes are out of range, or shapes do not fit.

    Example:
        >>> float(default_loss(torch.zeros(2, 4), torch.tensor([0, 3])))  # log 4
        1.3862943649291992
    """
    output = float_outputs_or_first(outputs)
    if not isinstance(targets, Tensor):
        raise UsageError(
            f"the targets are a {type(targets).__name__}", advice="give a tensor, or a loss"
        )
    if targets.is_floating_point():
        if targets.shape != output.shape:
            raise UsageError(
                f"targets {[*targets.shape]} for outputs {[*output.shape]}",
                advice="give targets of the outputs' shape, or a loss",
            )
        return F.mse_loss(output, targets.to(output))
    classes = output.shape[1] if output.dim() > 1 else 0
    wanted = (output.shape[0], *output.shape[2:])
    if tuple(targets.shape) != wanted or not classes:
        raise UsageError(
            f"classes {[*targets.shape]} for outputs {[*output.shape]}",
            advice="give one class per example (and position), or a loss",
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise UsageError(
            f"classes from {low} to {high}, but the model has {classes} outputs",
            advice="number the classes from 0, or give a loss",
        )
    return F.cross_entropy(output, targets.long())


def float_outputs_or_first(outputs: Any) -> Tensor:
    """The first floating-point tensor of a model's outputs."""
    output = next(
        (leaf for leaf in tensors(outputs) if leaf.is_floating_point() and leaf.dim()), None
    )
    if output is None:
        raise AnalysisError("the model has no floating-point output", advice="give a loss")
    return output


def batch_size(inputs: Inputs) -> int:
    """Examples in a batch: the first axis of its first tensor that has one."""
    return next((leaf.shape[0] for leaf in tensors(inputs) if leaf.dim()), 0)
