r"""Taps on units: their influence on log K without other units' noise (docs/theory.md, section 30).

Scaling the forward energy of unit i (channel i of what layers read) changes log K at the rate
``a_i . dlog K/da_i / 2``, scaling its backward energy (of the gradient at its own output) at the
rate ``b_i . dlog K/db_i / 2``. Both hold the unit's own influence and, through the weights that
read it (forward) or that it reads with (backward), cross terms with all other units: zero on
average, but their squares add up to a correction of the same order, which those weights' own
layer already counts. They are sums of ``W . dlog K / dW`` over the weights that a unit meets,
with the derivative through the forward pass alone (reading weights) or through the backward pass
alone (its own weights); how these terms scatter around what they have in common is the noise. In
deep networks with batch norms it exceeds the rest a thousandfold, and no subtraction helps. There
the influence is fitted: width enters K through kernels over positions, ``sum_i a_i a_i'`` and
``sum_i b_i b_i'``, so unit i has the influence ``a_i' M a_i + b_i' N b_i`` with matrices common to
all units, here in the span of the identity and the mean over positions: noise averages out, finer
structure is lost. Where even that one coefficient would be noise, the identity alone is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cerewrite.estimators.draws.fit import quadratic
from cerewrite.estimators.draws.layout import Layout
from cerewrite.estimators.draws.norms import into_norm, out_of_norm
from cerewrite.estimators.draws.places import Place, Units

Array = NDArray[np.float64]

UNKNOWN = 1e6
"""Stands for a noise that is not known: the fitted influences count alone."""


class _Tap(torch.autograd.Function):
    """The identity, whose gradient passes a probe (zeros) that log K can be derived by."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, probe: Tensor, box: list[Tensor]) -> Tensor:
        ctx.save_for_backward(probe)
        ctx.box = box
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (probe,) = ctx.saved_tensors
        if not ctx.box:
            ctx.box.append(grads[0].detach())
        return grads[0] + probe, None, None


@dataclass(slots=True)
class _Pass:
    """What a tap saw at one call of a layer: weight, input, output, the gradient and its probe."""

    weight: Tensor
    layout: Layout
    x: Tensor | None = None
    z: Tensor | None = None
    probe: Tensor | None = None
    box: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Influences:
    """What units do to log K, ``[units]`` each.

    Attributes:
        forward: raw rate by the forward energy.
        backward: raw rate by the backward energy.
        noise: variance of the noise in both.
        fitted: influence fitted with the identity and the mean over positions.
        plain: influence fitted with the identity alone.
        slack: what the noise leaves in the squares of the fit.
        mixed: the noise that layers without the units' own groups make: it stays in the sum over
            a member's units, from which that of the member's own layers drops out.
        share: raw rates as layers see them, whatever norms take away again: a unit's part in K.
    """

    forward: Array
    backward: Array
    noise: Array
    fitted: Array
    plain: Array
    slack: Array
    mixed: Array
    share: Array


class Gates:
    """Taps on every unit of a model.

    Args:
        units: the units and their places.
        like: a tensor of the model's dtype and device.

    Attributes:
        across: variance of log K by layers over positions, by the class that they write, after
            `influences`.
    """

    def __init__(self, units: Units, like: Tensor) -> None:
        self.units = units
        self._reads = {place.module: place for place in units.reads}
        self._writes = {place.module: place for place in units.writes}
        self._energy = torch.ones(units.count + 1, dtype=like.dtype, device=like.device)
        self._energy.requires_grad_()
        self._passes: dict[str, list[_Pass]] = {}
        self.across: dict[str, float] = {}

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """The taps set on a model, for the time of a block and of one forward pass."""
        self._passes = {}
        handles: list[RemovableHandle] = []
        try:
            for name in {**self._reads, **self._writes, **self.units.across}:
                module = model.get_submodule(name)
                handles.append(module.register_forward_pre_hook(self._reading(name)))
                handles.append(module.register_forward_hook(self._writing(name)))
            for place in self.units.norms:
                module = model.get_submodule(place.module)
                handles.append(module.register_forward_pre_hook(self._into_norm(place)))
                handles.append(module.register_forward_hook(self._out_of_norm(place)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def influences(self, log_kernel: Tensor) -> Influences:
        """Rates of log K from a pass under `on`.

        Args:
            log_kernel: log K with its graph.
        """
        seen = [one for calls in self._passes.values() for one in calls]
        found_at = [t for p in seen for t in (p.weight, p.x, p.z, p.probe) if t is not None]
        leaves = list({id(t): t for t in found_at if t.requires_grad}.values())
        found = torch.autograd.grad(
            log_kernel, [*leaves, self._energy], allow_unused=True, retain_graph=True
        )
        slopes = {id(t): s for t, s in zip(leaves, found, strict=False) if s is not None}
        total = Influences(*(np.zeros(self.units.count + 1) for _ in fields(Influences)))
        self.across = {}
        for name, calls in self._passes.items():
            rows = self.units.logits.get(name)
            if name in self.units.across:
                weight, layout = calls[0].weight, calls[0].layout
                half = layout.half_squares(weight, slopes.get(id(weight)), rows)
                self.across[self.units.across[name]] = half
            if name not in self.units.across or rows is not None:
                self._layer(name, calls, slopes, total)
        np.add(total.forward, total.backward, out=total.share)
        if found[-1] is not None:
            energies = found[-1].detach().double().cpu().numpy()
            np.add(total.forward, energies, out=total.forward)
            np.add(total.fitted, energies, out=total.fitted)
            np.add(total.plain, energies, out=total.plain)
        return Influences(*(getattr(total, part.name)[:-1] for part in fields(Influences)))

    def _layer(
        self, name: str, calls: Sequence[_Pass], slopes: dict[int, Tensor], total: Influences
    ) -> None:
        """Add one layer's part: forward rates of what it reads, backward rates of its output.

        A unit that passes in several calls has the sum of their rates, and one noise: that of the
        weights, which the calls have in common.
        """
        weight, layout = calls[0].weight, calls[0].layout
        whole = slopes.get(id(weight))
        through = torch.zeros_like(weight)
        for seen in calls:
            slope = slopes.get(id(seen.z))
            if slope is not None and seen.z is not None:
                (found,) = torch.autograd.grad(
                    seen.z, weight, slope, retain_graph=True, allow_unused=True
                )
                through = through if found is None else through + found
        reads, writes = self._reads.get(name), self._writes.get(name)
        read = [seen for seen in calls if seen.x is not None and id(seen.x) in slopes]
        if reads is not None:
            for seen in read:
                assert seen.x is not None
                self._add(total, total.forward, reads, seen.x, slopes[id(seen.x)])
            if read:
                noise = layout.columns(weight, through, len(reads.ids)) / 4
                assert read[0].x is not None
                self._noise(total, reads, read[0], noise, read[0].x)
        if writes is None:
            return
        if name in self.units.loose:
            for seen in calls:
                slope = slopes.get(id(seen.z))
                if slope is not None and seen.z is not None:
                    rates = _rates(seen.z, slope, writes.axis)
                    np.add.at(total.forward, writes.ids, rates)
                    _fit(total, writes, seen.z * (slope != 0), slope, rates)  # that pass on
                    np.add.at(total.noise, writes.ids, UNKNOWN)
        wrote = [seen for seen in calls if seen.box and id(seen.probe) in slopes]
        for seen in wrote:
            self._add(total, total.backward, writes, seen.box[0], slopes[id(seen.probe)])
        if wrote:
            rest = through.neg() if whole is None else whole - through
            self._noise(total, writes, wrote[0], layout.rows(weight, rest) / 4, wrote[0].box[0])

    @staticmethod
    def _add(total: Influences, kind: Array, place: Place, signal: Tensor, slope: Tensor) -> None:
        """Add the rates of a place's units in one call, and what they do as fitted."""
        rates = _rates(signal, slope, place.axis)
        np.add.at(kind, place.ids, rates)
        _fit(total, place, signal, slope, rates)

    @staticmethod
    def _noise(total: Influences, place: Place, seen: _Pass, noise: Array, signal: Tensor) -> None:
        """Add the noise that is in the rates of a place's units."""
        np.add.at(total.noise, place.ids, noise)
        np.add.at(total.slack, place.ids, noise / (signal[0].numel() // place.groups))
        if seen.layout.groups != place.groups:
            np.add.at(total.mixed, place.ids, noise)

    def _reading(self, name: str) -> Callable[..., Any]:
        def hook(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            x = inputs[0].view_as(inputs[0])
            layout = Layout.of(module, name in self.units.turned)
            seen = _Pass(module.weight, layout, x if x.requires_grad else None)
            self._passes.setdefault(name, []).append(seen)
            return (x, *inputs[1:])

        return hook

    def _writing(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            seen = self._passes[name][-1]
            seen.z = output
            if name not in self._writes:
                return output
            seen.probe = torch.zeros_like(output, requires_grad=True)
            tapped: Tensor = _Tap.apply(output, seen.probe, seen.box)  # type: ignore[no-untyped-call]
            return tapped

        return hook

    def _scale(self, place: Place, x: Tensor) -> Tensor:
        ids = torch.from_numpy(place.ids % len(self._energy)).to(x.device)
        roots = self._energy.sqrt()[ids]
        shape = [1] * x.dim()
        shape[place.axis] = len(roots)
        return roots.view(shape)

    def _into_norm(self, place: Place) -> Callable[..., Any]:
        """The norm's own statistics see the unit's weight ..."""

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            x = inputs[0]
            return (into_norm(module, x, self._scale(place, x), place), *inputs[1:])

        return hook

    def _out_of_norm(self, place: Place) -> Callable[..., Any]:
        """... but what the unit hands on does not."""

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return out_of_norm(module, inputs[0], output, self._scale(place, output), place)

        return hook


def _rates(signal: Tensor, slope: Tensor, axis: int) -> Array:
    """``signal . slope / 2`` per channel, summed over everything else, ``[channels]``."""
    product = (signal.detach() * slope).movedim(axis, 0).flatten(1).sum(1)
    rates: Array = product.double().cpu().numpy() / 2
    return rates


def _fit(total: Influences, place: Place, signal: Tensor, slope: Tensor, rates: Array) -> None:
    """Add what a place's units do, as fitted.

    The first example's signals count; the sum of ``rates``, those of all units and examples
    together, is what norms hold free of noise. Existing members are fitted one by one.
    """
    axis, units = max(place.axis - 1, -1), len(place.ids) // place.inner
    signals, slopes = (
        t.detach()[0].double().movedim(axis, 0).reshape(units, -1) for t in (signal, slope)
    )
    whole = zip(
        signals.chunk(place.groups),
        slopes.chunk(place.groups),
        np.split(place.ids[:: place.inner], place.groups),
        rates.reshape(place.groups, -1).sum(1).tolist(),
        strict=True,
    )
    for a, h, ids, rate in whole:
        energies = a.square().sum(1)
        shares: Array = (energies / energies.sum().clamp_min(1e-300)).cpu().numpy()
        np.add.at(total.plain, ids, rate * shares)
        np.add.at(total.fitted, ids, quadratic(a, h) if a.shape[1] > 1 else rate * shares)
