"""Taps on units: their signals, and what log K owes to each, forward and backward.

A layer's finite width enters K through two kernels over positions, ``C = sum_i a_i a_i'`` of what
its readers read and ``B = sum_i b_i b_i'`` of the gradients at its own output, so the influence
of unit i is ``a_i' M a_i + b_i' N b_i`` with matrices M, N common to all units. The raw derivative
``a_i . dlog K / da_i`` has that mean, but it also holds the cross terms of unit i with all others
through the next layer's weights: noise that belongs to that layer and would be counted twice.
`quadratic` fits M on the span of the identity and the mean, which averages the noise away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cerewrite.empirical.units import Place, Units


class _Tap(torch.autograd.Function):
    """The identity, whose gradient passes a probe (zeros) that log K can be derived by."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, probe: Tensor, box: list[Tensor]) -> Tensor:
        ctx.save_for_backward(probe)
        ctx.box = box
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (probe,) = ctx.saved_tensors
        if not ctx.box:
            ctx.box.append(grads[0].detach())
        return grads[0] + probe, None, None


@dataclass(slots=True)
class _Run:
    """What the taps saw in one forward pass."""

    reads: list[tuple[Place, Tensor]] = field(default_factory=list)
    writes: list[tuple[Place, Tensor, list[Tensor]]] = field(default_factory=list)


class Gates:
    """Taps on every unit of a model.

    Args:
        units: the units and their places.
        like: a tensor of the model's dtype and device.
    """

    def __init__(self, units: Units, like: Tensor) -> None:
        self.units = units
        self._like = like
        self._energy = torch.ones(units.count + 1, dtype=like.dtype, device=like.device)
        self._energy.requires_grad_()
        self._run = _Run()

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """The taps set on a model, for the time of a block and of one forward pass."""
        self._run = _Run()
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

    def influences(self, log_kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Forward and backward influence of every unit on log K, ``[units]`` each, float64.

        Args:
            log_kernel: log K with its graph, from a pass under `on`.
        """
        run = self._run
        leaves = [x for _, x in run.reads] + [probe for _, probe, _ in run.writes]
        slopes = torch.autograd.grad(log_kernel, [*leaves, self._energy], allow_unused=True)
        up, down = (torch.zeros(self.units.count + 1, dtype=torch.float64) for _ in range(2))
        for (place, x), slope in zip(run.reads, slopes, strict=False):
            self._add(up, place, x, slope)
        for (place, _, box), slope in zip(run.writes, slopes[len(run.reads) :], strict=False):
            if box:
                self._add(down, place, box[0], slope)
        if slopes[-1] is not None:
            up += slopes[-1].detach().double().cpu()
        return up[:-1], down[:-1]

    def _add(self, total: Tensor, place: Place, signal: Tensor, slope: Tensor | None) -> None:
        if slope is not None:
            values = quadratic(
                _units_by_positions(signal.detach(), place), _units_by_positions(slope, place)
            )
            ids = torch.from_numpy(place.ids[:: place.inner])
            total.index_add_(0, ids % len(total), values)

    def _reading(self, place: Place) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            x = inputs[0].view_as(inputs[0])
            if x.requires_grad:
                self._run.reads.append((place, x))
            return (x, *inputs[1:])

        return hook

    def _writing(self, place: Place) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            probe = torch.zeros_like(output, requires_grad=True)
            box: list[Tensor] = []
            self._run.writes.append((place, probe, box))
            tapped: Tensor = _Tap.apply(output, probe, box)  # type: ignore[no-untyped-call]
            return tapped

        return hook

    def _scale(self, place: Place, x: Tensor) -> Tensor:
        ids = torch.from_numpy(place.ids % len(self._energy)).to(x.device)
        roots = self._energy.sqrt()[ids]
        shape = [1] * x.dim()
        shape[place.axis] = len(roots)
        return roots.view(shape)

    def _into_norm(self, place: Place) -> Callable[..., Any]:
        """The norm's own energy sees the unit's weight ..."""

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (inputs[0] * self._scale(place, inputs[0]), *inputs[1:])

        return hook

    def _out_of_norm(self, place: Place) -> Callable[..., Any]:
        """... but what the unit hands on does not."""

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return output / self._scale(place, output)

        return hook


def _units_by_positions(x: Tensor, place: Place) -> Tensor:
    """First example of a tensor as ``[units, positions]``, float64."""
    example = x[0] if x.dim() > 1 else x[None][0]
    axis = place.axis - 1
    flat = example.detach().double().cpu().movedim(axis, 0)
    return flat.reshape(len(place.ids) // place.inner, -1)


def quadratic(signal: Tensor, slope: Tensor) -> Tensor:
    """Influences ``a_i' M a_i`` with ``dlog K / da_i = 2 M a_i`` fitted over all units.

    Args:
        signal: a, ``[units, positions]``.
        slope: dlog K / da, likewise.

    Returns:
        ``[units]``; their sum is that of the raw ``a_i . slope_i / 2``.

    Example:
        >>> a = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
        >>> quadratic(a, 3 * a).tolist()
        [1.5, 6.0]
    """
    basis = [signal]
    if signal.shape[1] > 1:
        basis.append(signal.mean(1, keepdim=True).expand_as(signal))
    design = torch.stack([part.flatten() for part in basis])
    gram, target = design @ design.T, design @ slope.flatten() / 2
    weights = torch.linalg.lstsq(gram, target[:, None], driver="gelsd").solution[:, 0]
    return sum(
        (w * (signal * part).sum(1) for w, part in zip(weights, basis, strict=True)),
        torch.zeros(len(signal), dtype=signal.dtype),
    )
