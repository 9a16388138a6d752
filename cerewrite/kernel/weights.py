"""What moment rules read off a model's own parameters."""

from __future__ import annotations

import math

from torch import Tensor, nn

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.kernel.constants import Constants
from cerewrite.kernel.values import Moments, gaussian_value, scalar


class Layers(dict[str, Layer]):
    """Sampled layers by operator; one that has no weight of its own has no closed form."""

    def __missing__(self, node: str) -> Layer:
        raise NoClosedFormError(
            f"'{node}' has no weight of its own: it is computed in the forward, or empty",
            advice="use --estimator jackknife, or keep the weight in a layer of its own",
        )


class Weights:
    """Mean squares of parameters that no sampled layer draws.

    Args:
        model: the module.
        traced: its trace.
        standard: standard instead of NTK parametrisation.

    Attributes:
        constants: values that no input reaches.
    """

    def __init__(self, model: nn.Module, traced: TracedModel, *, standard: bool) -> None:
        self._model = model
        self.standard = standard
        drawn = {layer.node for layer in traced.layers}
        self.constants = Constants(traced.ops, lambda name: _tensor(model, name), drawn)
        self._known: dict[str, Moments | None] = {}
        self._affine: dict[str, tuple[float, float, float]] = {}

    def known(self, op: Op) -> Moments | None:
        """The moments of a value that no input reaches, as it is computed.

        None where the rules must say what it is: parameters have a rule of their own, and so
        has what is made of them where they have a share of the kernel.
        """
        if op.name not in self._known:
            self._known[op.name] = self._computed(op)
        return self._known[op.name]

    def _computed(self, op: Op) -> Moments | None:
        if op.is_stored or (self.standard and op.name in self.constants.trained):
            return None
        value = self.constants.value(op.name)
        if value is None or not value.numel() or not bool(value.isfinite().all()):
            return None
        return gaussian_value(scalar(_mean_square(value)), scalar(0.0), constant=True)

    def parameter(self, op: Op) -> Moments:
        """A free parameter or a constant: its mean square, and 1 per unit if it is trained.

        On the meta device, where there is nothing to read, the mean square is taken as 1.
        """
        tensor = _tensor(self._model, op.module)
        if tensor is None or tensor.is_complex():
            tensor = self.constants.value(op.name)
        square = 1.0 if tensor is None or tensor.is_meta else _mean_square(tensor)
        trained = self.standard and op.target == "parameter"
        return gaussian_value(scalar(square), scalar(float(trained)), constant=True)

    def affine(self, op: Op) -> tuple[float, float, float]:
        """Mean square of a norm's scale and shift, and their own share of the kernel."""
        if op.module not in self._affine:
            self._affine[op.module] = self._read_affine(op)
        return self._affine[op.module]

    def _read_affine(self, op: Op) -> tuple[float, float, float]:
        module = self._model.get_submodule(op.module)
        tensors = [getattr(module, name, None) for name in ("weight", "bias")]
        found = [t for t in tensors if isinstance(t, nn.Parameter)]
        scale, shift = (
            default if t is None or t.is_meta else _mean_square(t)
            for t, default in zip(tensors, (1.0, 0.0), strict=True)
        )
        return scale, shift, float(len(found)) if self.standard else 0.0

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
        return gaussian_value(scalar(square), scalar(1.0 if self.standard else square))


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
