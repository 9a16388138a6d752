"""What moment rules may ask, and the noise that layers of finite width add (THEORY 5)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.oprules.activation import EnergyMoments, energy_moments
from cerewrite.oprules.values import Fresh, Moments, scalar

VIEWS = frozenset(
    {"view", "reshape", "unsqueeze", "squeeze", "_unsafe_view", "contiguous", "alias", "detach"}
    | {"clone", "to", "_to_copy", "type_as"}
)
"""Operators that show a parameter under another shape or type."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One place where a layer's fluctuation is read.

    Attributes:
        moments: what the nonlinearity there does to unit energies.
        fresh: share of the units' variance that is fresh, all layers together.
        part: this layer's part of that share.
        fixed: Hermite orders that a norm holds still.
        forward, backward: the perturbations of q and T there; zeros that ask for a gradient.
    """

    moments: EnergyMoments
    fresh: float
    part: float
    fixed: tuple[int, ...]
    forward: Tensor
    backward: Tensor


@dataclass(slots=True)
class Fluctuation:
    """Where one sampled layer's finite width is read, and what a norm divides out of it.

    Attributes:
        readings: in execution order; several where a concatenation is read more than once.
        v_norm: relative variance per unit of the energy that a norm divides out, 0 without.
        norm: its perturbation of q, in front of the norm.
    """

    readings: list[Reading]
    v_norm: float = 0.0
    norm: Tensor | None = None


class _Layers(dict[str, Layer]):
    """Sampled layers by operator; one that has no weight of its own has no closed form."""

    def __missing__(self, node: str) -> Layer:
        raise AnalysisError(
            f"'{node}' has no weight of its own: it is computed in the forward, or empty",
            advice="use --estimator monte-carlo, or keep the weight in a layer of its own",
        )


class MomentContext:
    """What moment rules may ask: layers, weight scales, and where fluctuations are read.

    Args:
        model: the module, asked for the values of its norms' scales and free parameters.
        traced: its trace.
        standard: standard instead of NTK parametrisation.
        gain: the ``fan_in * Var[W]`` to assume for every layer, biases zero; None for as built.

    Attributes:
        layers: sampled layers by the name of their operator.
        fluctuations: where each layer's fluctuation was read, filled on the way.
        readers: how many operators on the way to the output read each value.
        joined: values that a concatenation reads; their fluctuations stay pending, to be read
            by the nonlinearities behind it.
    """

    def __init__(
        self,
        model: nn.Module,
        traced: TracedModel,
        *,
        standard: bool = False,
        gain: float | None = None,
    ) -> None:
        self.layers = _Layers({layer.node: layer for layer in traced.layers})
        self.fluctuations: dict[str, Fluctuation] = {}
        self._norms: dict[str, tuple[float, Tensor]] = {}
        self._model = model
        self._shapes = {op.name: op for op in traced.ops}
        self._standard = standard
        self._gain = gain
        self.readers: Counter[str] = Counter()
        self.joined: frozenset[str] = frozenset()
        self._cache: dict[tuple[Any, float], EnergyMoments] = {}
        self._plain = energy_moments(None, 1.0)

    def parameter(self, op: Op) -> Moments:
        """A free parameter or a constant: its mean square, and 1 per unit if it is trained.

        On the meta device, where there is nothing to read, the mean square is taken as 1.
        """
        tensor = _tensor(self._model, op.module)
        square = 1.0 if tensor is None or tensor.is_meta else _mean_square(tensor)
        trained = self._standard and op.target == "parameter"
        return Moments(scalar(square), scalar(float(trained)))

    def is_free(self, name: str) -> bool:
        """Whether a value is a free parameter, perhaps seen under another shape."""
        op = self._shapes[name]
        while op.target in VIEWS and op.inputs:
            op = self._shapes[op.inputs[0]]
        return op.target == "parameter"

    def rescale(self, x: Moments, scale: Moments) -> Moments:
        """A value times a free parameter; fluctuations stay pending, for it reads no units.

        Under a gain that is not the model's own, scales are 1: what counts then is the
        architecture, not how its branches start.
        """
        square = scale.q if self._gain is None else scalar(1.0)
        return replace(x, q=x.q * square, kernel=x.kernel * square + x.q * scale.kernel)

    def affine(self, op: Op) -> tuple[float, float, float]:
        """Mean square of a norm's scale and shift, and their own share of the kernel."""
        module = self._model.get_submodule(op.module)
        tensors = [getattr(module, name, None) for name in ("weight", "bias")]
        found = [t for t in tensors if isinstance(t, nn.Parameter)]
        scale, shift = (
            default if t is None or t.is_meta else _mean_square(t)
            for t, default in zip(tensors, (1.0, 0.0), strict=True)
        )
        return scale, shift, float(len(found)) if self._standard else 0.0

    def module(self, op: Op) -> nn.Module:
        """The module that ran an operator."""
        return self._model.get_submodule(op.module)

    def slope(self, op: Op) -> float:
        """Root mean square of a PReLU's slopes."""
        weight = getattr(self._model.get_submodule(op.module), "weight", None)
        return 0.25 if weight is None or weight.is_meta else math.sqrt(_mean_square(weight))

    def table(self, op: Op) -> Moments:
        """An embedding's rows: standard normal at its own initialisation."""
        weight = getattr(self._model.get_submodule(op.module), "weight", None)
        square = 1.0 if weight is None or weight.is_meta else _mean_square(weight)
        return Moments(scalar(square), scalar(1.0 if self._standard else square))

    def sizes(self, op: Op) -> list[int]:
        """Elements of each operand."""
        return [self._shapes[name].numel for name in op.inputs]

    def weigh(self, layer: Layer, x: Moments) -> Moments:
        """A linear or convolution layer: ``q = s q + b`` and ``T = L q + l + s T``."""
        gain = layer.gain if self._gain is None else self._gain
        bias = layer.bias_variance if self._gain is None else 0.0
        scale = float(layer.fan_in) if self._standard else gain
        bias_scale = float(layer.bias) if self._standard else 0.0
        return Moments(
            q=gain * x.q + bias,
            kernel=scale * x.q + bias_scale + gain * x.kernel,
            fresh=(Fresh(layer.name, 1.0),),
        )

    def apply(self, function: Callable[..., Any] | None, key: Any, x: Moments) -> Moments:
        """A pointwise function: moments through it, and pending fluctuations read behind it.

        Behind a batch norm one example's energy passes in proportion, as through a homogeneous
        function: the slope at the batch's scale would compound over layers, which Monte-Carlo
        does not show.
        """
        q = float(x.q.detach())
        moments = self._energy(function, key, q)
        up, down = moments.forward_slope, moments.backward_slope
        if x.pooled:
            up, down = moments.forward / q, 0.0
        shift = x.q - q
        out = replace(
            x,
            q=moments.forward + up * shift,
            kernel=(moments.backward + down * shift) * x.kernel,
        )
        return self._read(out, moments)

    def normalise(self, op: Op, x: Moments, *, fixed: tuple[int, ...], own_energy: bool) -> Moments:
        """A norm: ``q = gamma^2 + beta^2``, ``T = gamma^2 T / q`` (THEORY 5).

        Args:
            op: the norm.
            x: what it reads.
            fixed: Hermite orders of the units that it holds still (2: their energy, 1: their
                mean), so that only the others still scatter behind it.
            own_energy: whether it divides by the example's own energy (layer, group, RMS norm)
                or by that of a large, varied batch, in which one example's fluctuation passes.
        """
        gain, shift, own = self.affine(op)
        q = x.q
        if own_energy:
            for fresh in x.fresh:
                spread = 2 * (1 - (1 - fresh.share) ** 2)
                _, norm = self._norms.setdefault(fresh.layer, (spread, _perturbation()))
                q = q * (1 + fresh.units[0] * norm)
        scale = q if own_energy else q.detach()
        held = tuple(replace(fresh, fixed=(*fresh.fixed, *fixed)) for fresh in x.fresh)
        return Moments(
            q=gain * q / scale + shift,
            kernel=gain * x.kernel / scale + own,
            fresh=held,
            pooled=not own_energy,
        )

    def settle(self, op: Op, x: Moments) -> Moments:
        """Read pending fluctuations of a value that several operators use, as they stand."""
        if x.fresh and self.readers[op.name] > 1 and op.name not in self.joined:
            return self.read(x)
        return x

    def read(self, x: Moments) -> Moments:
        """Read pending fluctuations of a value as they stand: the identity as nonlinearity."""
        return self._read(x, self._plain) if x.fresh else x

    def _energy(self, function: Callable[..., Any] | None, key: Any, q: float) -> EnergyMoments:
        if not q > 0 or q == float("inf"):
            raise AnalysisError(
                f"the mean square reaches {q:g} before {key or 'a layer'}",
                advice="the signal dies or explodes at this initialisation: try --gain he",
            )
        if (key, q) not in self._cache:
            self._cache[key, q] = energy_moments(function, q)
        return self._cache[key, q]

    def _read(self, x: Moments, moments: EnergyMoments) -> Moments:
        shared = sum(fresh.share for fresh in x.fresh if fresh.beside is None)
        q, kernel = x.q, x.kernel
        for fresh in x.fresh:
            total = shared if fresh.beside is None else fresh.beside
            if total <= 0:
                continue
            at = Reading(
                moments,
                min(total, 1.0),
                fresh.share / total,
                fresh.fixed,
                _perturbation(),
                _perturbation(),
            )
            seen = self.fluctuations.setdefault(fresh.layer, Fluctuation([]))
            seen.readings.append(at)
            seen.v_norm, seen.norm = self._norms.get(fresh.layer, (0.0, None))
            q = q * (1 + fresh.units[0] * at.forward)
            kernel = kernel * (1 + fresh.units[1] * at.backward)
        return replace(x, q=q, kernel=kernel, fresh=())


def _perturbation() -> Tensor:
    return torch.zeros((), dtype=torch.float64, requires_grad=True)


def _mean_square(tensor: Tensor) -> float:
    return float(tensor.detach().double().pow(2).mean())


def _tensor(model: nn.Module, name: str) -> Tensor | None:
    """A parameter or buffer by its qualified name; None for constants of the trace itself."""
    owner, _, leaf = name.rpartition(".")
    try:
        found = getattr(model.get_submodule(owner), leaf, None)
    except AttributeError:
        return None
    return found if isinstance(found, Tensor) else None
