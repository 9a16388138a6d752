"""Gates on units: forward and backward energy scaled by weights that ask for a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cerewrite.empirical.units import Place, Units


class _Gate(torch.autograd.Function):
    """``y = forward * x``, whose gradient is scaled by ``backward`` instead; twice differentiable.

    Both are 1 when it is used: only derivatives with respect to them are wanted.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        ctx.save_for_backward(x, forward, backward)
        return x * forward

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, forward, backward = ctx.saved_tensors
        (grad,) = grads
        own = (grad * x).sum_to_size(forward.shape) if ctx.needs_input_grad[1] else None
        return grad * backward, own, None


class Gates:
    """Gates on every unit of a model, energies scaled by ``forward`` and ``backward``.

    Args:
        units: the units and their places.
        like: a tensor of the model's dtype and device.

    Attributes:
        forward: weights of the units' forward energies, ``[units]``, all 1.
        backward: weights of their backward energies, likewise.
    """

    def __init__(self, units: Units, like: Tensor) -> None:
        self.units = units
        options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
        self.forward = torch.ones(units.count, **options).requires_grad_()
        self.backward = torch.ones(units.count, **options).requires_grad_()
        self._one = torch.ones(1, **options)
        self._index = {
            id(place): torch.from_numpy(place.ids % (units.count + 1)).to(like.device)
            for place in (*units.reads, *units.norms, *units.writes)
        }

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """The gates set on a model, for the time of a block."""
        handles: list[RemovableHandle] = []
        try:
            for place in self.units.reads:
                module = model.get_submodule(place.module)
                handles.append(module.register_forward_pre_hook(self._reading(place)))
            for place in self.units.writes:
                module = model.get_submodule(place.module)
                handles.append(module.register_forward_hook(self._writing(place)))
            for place in self.units.norms:
                module = model.get_submodule(place.module)
                handles.append(module.register_forward_pre_hook(self._into_norm(place)))
                handles.append(module.register_forward_hook(self._out_of_norm(place)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _scale(self, weights: Tensor, place: Place, x: Tensor) -> Tensor:
        """Square roots of weights along a place's axis, broadcast to a tensor."""
        roots = torch.cat([weights.sqrt(), self._one])[self._index[id(place)]]
        shape = [1] * x.dim()
        shape[place.axis - x.dim()] = len(roots)
        return roots.view(shape)

    def _gated(self, place: Place, x: Tensor) -> Tensor:
        gated: Tensor = _Gate.apply(
            x, self._scale(self.forward, place, x), self._scale(self.backward, place, x)
        )  # type: ignore[no-untyped-call]
        return gated

    def _reading(self, place: Place) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self._gated(place, inputs[0]), *inputs[1:])

        return hook

    def _writing(self, place: Place) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return self._gated(place, output)

        return hook

    def _into_norm(self, place: Place) -> Callable[..., Any]:
        """The norm's own energy sees the unit's weight ..."""

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (inputs[0] * self._scale(self.forward, place, inputs[0]), *inputs[1:])

        return hook

    def _out_of_norm(self, place: Place) -> Callable[..., Any]:
        """... which the unit itself gets only where it is read."""

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return output / self._scale(self.forward, place, output)

        return hook
