"""What moment rules read off a model's own parameters."""

from __future__ import annotations

import math

from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.ir import Layer, Op
from cerewrite.oprules.values import Moments, opaque, scalar


class Layers(dict[str, Layer]):
    """Sampled layers by operator; one that has no weight of its own has no closed form."""

    def __missing__(self, node: str) -> Layer:
        raise AnalysisError(
            f"'{node}' has no weight of its own: it is computed in the forward, or empty",
            advice="use --estimator monte-carlo, or keep the weight in a layer of its own",
        )


class Weights:
    """Mean squares of parameters that no sampled layer draws.

    Args:
        model: the module.
        standard: standard instead of NTK parametrisation.
    """

    def __init__(self, model: nn.Module, *, standard: bool) -> None:
        self._model = model
        self.standard = standard

    def parameter(self, op: Op) -> Moments:
        """A free parameter or a constant: its mean square, and 1 per unit if it is trained.

        On the meta device, where there is nothing to read, the mean square is taken as 1.
        """
        tensor = _tensor(self._model, op.module)
        square = 1.0 if tensor is None or tensor.is_meta else _mean_square(tensor)
        trained = self.standard and op.target == "parameter"
        return opaque(scalar(square), scalar(float(trained)), constant=True)

    def affine(self, op: Op) -> tuple[float, float, float]:
        """Mean square of a norm's scale and shift, and their own share of the kernel."""
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
        return opaque(scalar(square), scalar(1.0 if self.standard else square))


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
