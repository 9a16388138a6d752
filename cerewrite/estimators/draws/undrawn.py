"""Weights that no sampled layer holds: who draws them, and what they weigh in the kernel.

A parameter is a weight where a contraction reads it, or what is made of it alone: a product of
matrices, a recurrent layer, a convolution whose weight is computed. All others (scales and shifts
of norms, class tokens, positions, layer scales) stay as built, as an initialisation makes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cerewrite.errors import AnalysisError
from cerewrite.estimators.draws.gaussian import mean_square, module_name
from cerewrite.initialisers.base import seeded_globally
from cerewrite.ir import TracedModel

CONTRACTIONS = frozenset(
    {"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
     "conv_transpose3d", "matmul", "mm", "bmm", "mv", "addmm", "baddbmm", "addbmm", "addmv",
     "einsum", "tensordot", "bilinear", "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell",
     "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "inner", "dot", "chain_matmul"}
)  # fmt: skip
"""Operators that add up products of weights and values."""

RESETS = ("reset_parameters", "_reset_parameters")
"""Methods by which modules draw their own parameters."""


ITERATIONS = 15
"""Steps of power iteration behind a new weight, as many as spectral norm begins with."""

PRODUCTS = frozenset({"matmul", "mv", "dot", "inner", "einsum", "tensordot"})
"""Of these, the ones that may read a vector as a weight; elsewhere a vector is a bias."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A module that draws weights of its own.

    Attributes:
        module: its qualified name; "" for the model itself.
        weight: the name of a weight that a parametrisation computes; "" where the module has a
            method that draws.
        deviation: standard deviation of such a weight.
        parameters: qualified names of the weights.
    """

    module: str
    weight: str
    deviation: float
    parameters: tuple[str, ...]

    def draw(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the weights in place."""
        module = model.get_submodule(self.module)
        if self.weight:
            fresh = torch.empty_like(getattr(module, self.weight), device="cpu")
            fresh.normal_(0.0, self.deviation, generator=generator)
            setattr(module, self.weight, fresh.to(next(module.parameters()).device))
            _settle(module, self.weight)
            return
        with seeded_globally(generator):
            _reset(module)


def _settle(module: nn.Module, weight: str) -> None:
    """Let what a parametrisation iterates (a spectral norm's vectors) follow the new weight."""
    owner = module.get_submodule(f"parametrizations.{weight}")
    before = [(child, child.training) for child in owner.modules()]
    owner.train()
    for _ in range(ITERATIONS):
        getattr(module, weight)
    for child, training in before:
        child.training = training


def weights_apart(traced: TracedModel, drawn: Sequence[str]) -> tuple[str, ...]:
    """Qualified names of the parameters that contractions read as weights and no layer holds.

    Args:
        traced: the trace.
        drawn: the parameters of sampled layers.
    """
    known = set(drawn)
    held = [y for y in traced.layers if known & {f"{module_name(y)}.weight", module_name(y)}]
    layers = {node for layer in held for node in layer.nodes}
    vectors = {op.module for op in traced.ops if op.target == "parameter" and len(op.shape) < 2}
    made: dict[str, tuple[str, ...]] = {}
    found: dict[str, None] = {}
    for op in traced.ops:
        if op.target == "parameter":
            made[op.name] = (op.module,)
        elif op.target == "constant":
            made[op.name] = ()
        elif op.name not in layers and op.inputs:
            weights = [name for read in op.inputs for name in made.get(read, ())]
            if all(read in made for read in op.inputs):
                made[op.name] = tuple(dict.fromkeys(weights))
            elif op.target in CONTRACTIONS:
                plain = op.target in PRODUCTS
                found |= dict.fromkeys(name for name in weights if plain or name not in vectors)
    return tuple(name for name in found if name not in known)


def fresh_modules(
    model: nn.Module, weights: Sequence[str], variances: Mapping[str, float]
) -> tuple[Fresh, ...]:
    """Who draws some weights.

    Weights under a parametrisation are drawn as the weight that it computes, Gaussian. All others
    are drawn by the method of the nearest module around them that has one, of these names:
    reset_parameters, _reset_parameters.

    Args:
        model: the model.
        weights: qualified names of its parameters.
        variances: variance of the weight of sampled layers, by module; others as built.

    Raises:
        AnalysisError: if nothing draws a weight that is not constant; it names the module.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name in weights:
        found.setdefault(_owner(model, name), []).append(name)
    return tuple(
        Fresh(module, weight, _deviation(model, module, weight, variances), tuple(names))
        for (module, weight), names in found.items()
    )


def _owner(model: nn.Module, name: str) -> tuple[str, str]:
    """The module that draws a weight, and the computed weight that stands for it."""
    place, _, rest = name.partition("parametrizations.")
    if rest:
        return place.rstrip("."), rest.partition(".")[0]
    owner = name.rpartition(".")[0]
    first = model.get_submodule(owner)
    while True:
        module = model.get_submodule(owner)
        if any(callable(getattr(module, reset, None)) for reset in RESETS):
            break
        if not owner:
            raise _undrawn(name, first)
        owner = owner.rpartition(".")[0]
    _check(model, name, module)
    return owner, ""


def _check(model: nn.Module, name: str, module: nn.Module) -> None:
    """Refuse a method that leaves a weight as it was, unless that is a constant."""
    weight = model.get_parameter(name)
    before = [value.detach().clone() for value in module.parameters()]
    own = weight.detach().clone()
    with torch.no_grad(), seeded_globally(torch.Generator().manual_seed(0)):
        _reset(module)
        constant = own.numel() == 0 or bool((own == own.flatten()[0]).all())
        kept = torch.equal(weight, own) and not constant
        for value, old in zip(module.parameters(), before, strict=True):
            value.copy_(old)
    if kept:
        raise _undrawn(name, module)


def _reset(module: nn.Module) -> None:
    for reset in RESETS:
        method = getattr(module, reset, None)
        if callable(method):
            method()
            return


def _deviation(model: nn.Module, module: str, weight: str, variances: Mapping[str, float]) -> float:
    if not weight:
        return 0.0
    owner = model.get_submodule(module)
    assert parametrize.is_parametrized(owner, weight), (module, weight)
    value: Tensor = getattr(owner, weight)
    return math.sqrt(variances.get(module, mean_square(value)))


def _undrawn(name: str, module: nn.Module) -> AnalysisError:
    owner = name.rpartition(".")[0] or "the model"
    return AnalysisError(
        f"the weight '{name}' of '{owner}' ({type(module).__qualname__}) is of no layer that can "
        "be drawn anew, and nothing says how it is initialised",
        advice="give the module a reset_parameters(), pass redraw=, or use estimator 'analytic'",
    )
