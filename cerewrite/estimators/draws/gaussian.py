"""Which tensors an initialisation draws, how wide, and what each weighs in the kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.ir import Layer, TracedModel


@dataclass(frozen=True, slots=True)
class Draw:
    """One tensor that an initialisation draws.

    Attributes:
        parameter: its qualified name.
        deviation: standard deviation of its elements; 0 keeps them at zero.
        scale: weight of its squared gradients in the kernel, NTK parametrisation
            (docs/theory.md, eq. 3).
        blank: a row that stays zero (an embedding's padding); None for none.
    """

    parameter: str
    deviation: float
    scale: float
    blank: int | None = None

    def fill(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the tensor in place, on the CPU whatever its device: the same numbers anywhere."""
        tensor = model.get_parameter(self.parameter)
        if tensor.device.type == "cpu":
            tensor.normal_(0.0, self.deviation, generator=generator)
        else:
            fresh = torch.empty(tensor.shape, dtype=tensor.dtype)
            tensor.copy_(fresh.normal_(0.0, self.deviation, generator=generator))
        if self.blank is not None:
            tensor[self.blank].zero_()


def gaussian_draws(traced: TracedModel, model: nn.Module, gain: float | None) -> tuple[Draw, ...]:
    """Gaussian weights of variance ``gain / fan_in`` for every sampled layer of a trace.

    Tables of embeddings have their own mean square, whatever the gain.

    Args:
        traced: the trace.
        model: the module.
        gain: ``fan_in * Var[W]`` of every layer, biases zero; None for each layer's own gain
            and its own biases' variance.

    Raises:
        AnalysisError: if a layer's weight cannot be found.
    """
    found: dict[str, Draw] = {}
    for layer in traced.layers:
        if not layer.fan_in:
            raise AnalysisError(
                f"'{layer.name}' reads no channels: there is nothing to draw",
                advice="use estimator 'analytic', or leave the layer out",
            )
        weight, bias = weight_names(layer, model)
        energy = layer.gain if gain is None else gain
        variance = energy / layer.fan_in
        if _is_parameter(
            model, weight
        ):  # others are computed (`cerewrite.estimators.draws.undrawn`)
            found.setdefault(weight, Draw(weight, math.sqrt(variance), variance))
        if bias is not None:
            spread = math.sqrt(layer.bias_variance) if gain is None else 0.0
            found.setdefault(bias, Draw(bias, spread, 0.0))
    known = {id(model.get_parameter(name)) for name in found}
    return (
        *found.values(),
        *(draw for draw in tables(model) if id(model.get_parameter(draw.parameter)) not in known),
    )


def _is_parameter(model: nn.Module, name: str) -> bool:
    owner, _, leaf = name.rpartition(".")
    return leaf in model.get_submodule(owner)._parameters


def module_name(layer: Layer) -> str:
    """Qualified name of a layer's module or parameter, without the mark of a later call."""
    return layer.name.partition("@")[0]


def weight_names(layer: Layer, model: nn.Module) -> tuple[str, str | None]:
    """Qualified names of a layer's weight and bias."""
    name = module_name(layer)
    owner, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(name)
        if isinstance(getattr(module, "weight", None), Tensor):
            bias = getattr(module, "bias", None)
            return _join(name, "weight"), _join(name, "bias") if bias is not None else None
    except AttributeError:
        pass
    try:
        holder = model.get_submodule(owner)
        if isinstance(getattr(holder, leaf, None), Tensor):
            return name, _bias_beside(holder, owner, leaf)
    except AttributeError:
        pass
    raise AnalysisError(
        f"the weight of '{layer.name}' cannot be found", advice="trace the model that is measured"
    )


def _bias_beside(holder: nn.Module, owner: str, leaf: str) -> str | None:
    """``in_proj_bias`` for ``in_proj_weight``, where there is one."""
    bias = leaf.replace("weight", "bias")
    found = bias != leaf and isinstance(getattr(holder, bias, None), Tensor)
    return _join(owner, bias) if found else None


def _join(owner: str, leaf: str) -> str:
    return f"{owner}.{leaf}" if owner else leaf


def tables(model: nn.Module) -> Iterator[Draw]:
    """Embeddings' weights: Gaussian of their own mean square, unless they are frozen or zero."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.weight.requires_grad:
            square = mean_square(module.weight)
            if square > 0:
                deviation = math.sqrt(square)
                yield Draw(_join(name, "weight"), deviation, square, module.padding_idx)


def mean_square(tensor: Tensor) -> float:
    """Mean square of a tensor's elements."""
    return float(tensor.detach().double().square().mean())
