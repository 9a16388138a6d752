"""The model under measurement: a private copy, its inputs, its draws, its kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

from cerewrite.errors import AnalysisError, CerewriteError, NotFiniteError, own_line
from cerewrite.estimators.draws.gaussian import (
    Draw,
    gaussian_draws,
    mean_square,
    module_name,
)
from cerewrite.estimators.draws.readout import Readout, parse_readout
from cerewrite.estimators.draws.undrawn import Fresh, fresh_modules, weights_apart
from cerewrite.ir import TracedModel
from cerewrite.runtime.alone import alone, short_of_memory
from cerewrite.runtime.copies import deep_copy
from cerewrite.runtime.seeds import generator_for

_Redraw = Callable[[nn.Module, torch.Generator], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured. It can be pickled and copied, so that workers can have their own.

    Attributes:
        model: a private copy: dropout off, norms as asked for, every float parameter trained.
        args, kwargs: its inputs.
        readout: the scalar f that is read.
        draws: the tensors that an initialisation draws.
        scales: weight of each parameter's squared gradient in the kernel, those above 0.
        seed: seed of the draws.
        custom: draws the weights in place of the Gaussians.
        fresh: modules that draw weights of their own, before the Gaussians.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    readout: Readout
    draws: tuple[Draw, ...]
    scales: dict[str, float]
    seed: int
    custom: _Redraw | None
    fresh: tuple[Fresh, ...] = ()

    def redraw(self, index: int) -> None:
        """Draw the weights of initialisation ``index`` in place."""
        generator = generator_for(self.seed, index)
        with torch.no_grad():
            if self.custom is not None:
                self.custom(self.model, generator)
                return
            for module in self.fresh:
                module.draw(self.model, generator)
            for draw in self.draws:
                draw.fill(self.model, generator)

    def variances(self) -> dict[str, float]:
        """Variance of each drawn weight, by the name of its module."""
        return {draw.parameter.rpartition(".")[0]: draw.scale for draw in self.draws if draw.scale}

    def parameters(self) -> tuple[list[str], list[Tensor], list[float]]:
        """Names, tensors and scales of the parameters that make the kernel."""
        names = list(self.scales)
        return names, [self.model.get_parameter(n) for n in names], list(self.scales.values())

    def output(self) -> Tensor:
        """The scalar f on the current weights.

        Raises:
            AnalysisError: if the model raises, or f is not finite or needs no gradient.
        """
        try:
            with alone():
                outputs = self.model(*self.args, **self.kwargs)
        except CerewriteError:  # no memory, or the program was to end: no fault of the inputs
            raise
        except Exception as error:  # whatever the user's forward raises is the reason
            raise AnalysisError(
                f"the model raises on its inputs: {type(error).__name__}: {error}{own_line(error)}",
                advice="give inputs that it accepts; batch norms in training need two or more "
                "values per channel (or norms='eval')",
            ) from error
        f = self.readout(outputs)
        if not f.requires_grad:
            raise AnalysisError(
                "no parameter reaches the read-out", advice="check for detached or no_grad code"
            )
        if not math.isfinite(float(f.detach())):
            raise NotFiniteError(
                f"the output is {float(f.detach())}" + self._origin(), advice=_BLOWN
            )
        return f

    def gradients(self, *, create_graph: bool = False) -> tuple[Tensor | None, ...]:
        """Df / dt of every parameter in the kernel, None where none arrives."""
        _, tensors, _ = self.parameters()
        return torch.autograd.grad(
            self.output(), tensors, create_graph=create_graph, allow_unused=True
        )

    def kernel(self, index: int) -> float:
        """K of initialisation ``index``: one forward, one backward.

        A narrow network can be dead in one draw: then K is 0.

        Raises:
            AnalysisError: if K is not finite, or the model raises.
        """
        self.redraw(index)
        return self.current(index)

    def current(self, index: int) -> float:
        """K on the current weights, which ``index`` names in errors; see `kernel`."""
        with torch.enable_grad():
            gradients = self.gradients()
        scales = [s for s, g in zip(self.scales.values(), gradients, strict=True) if g is not None]
        norms = torch._foreach_norm([g for g in gradients if g is not None])
        value = sum(s * float(n) ** 2 for s, n in zip(scales, norms, strict=True))
        return self.finite(value, index)

    def finite(self, value: float, index: int) -> float:
        """``value`` if it can be a kernel."""
        if not 0 <= value < math.inf:
            raise NotFiniteError(
                f"the tangent kernel of draw {index} is {value:g}" + self._origin(), advice=_BLOWN
            )
        return value

    def unreached(self) -> tuple[str, ...]:
        """Parameters in the kernel that get no gradient on the current weights."""
        with torch.enable_grad():
            gradients = self.gradients()
        return tuple(n for n, g in zip(self.scales, gradients, strict=True) if g is None)

    def _origin(self) -> str:
        """Where the first value that is not finite appears, as the end of a sentence."""
        found: list[str] = []

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                values = [v for v in pytree.tree_leaves(output) if isinstance(v, Tensor)]
                if any(not bool(v.isfinite().all()) for v in values):
                    found.append(f"{name or 'the model'} ({type(module).__name__})")

            return hook

        hooks = [m.register_forward_hook(watch(n)) for n, m in self.model.named_modules()]
        try:
            with torch.no_grad(), alone():
                self.model(*self.args, **self.kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        return f": first seen behind {found[0]}" if found else ""


_BLOWN = "the signal explodes or holds NaN: check the inputs and the gain"


def make_subject(
    traced: TracedModel,
    model: nn.Module,
    example_inputs: Any,
    *,
    standard: bool = False,
    gain: float | None = None,
    seed: int = 0,
    readout: str = "",
    running_norms: bool = False,
    redraw: _Redraw | None = None,
) -> Subject:
    """A private copy of a model, ready to be drawn and measured.

    K is that of ``f = v . output`` of the first example. Where no norm mixes a batch, that
    example alone is run; with batch statistics the whole batch is.

    Args:
        traced: its trace.
        model: the module; it stays as it is.
        example_inputs: a tensor, a tuple or a dict; None for standard normal inputs of the
            traced shapes.
        standard: standard instead of NTK parametrisation.
        gain: ``fan_in * Var[W]`` of every layer, biases zero; None for as built.
        seed: seed of the draws.
        readout: see `Readout`.
        running_norms: norms on their running statistics instead of the batch's own.
        redraw: draws the weights in place of the Gaussians.

    Raises:
        AnalysisError: if there is nothing to measure, or it cannot be copied.
    """
    own = _copy(model)
    args, kwargs = _arguments(traced, example_inputs)
    own.eval()
    mixing = [m for m in own.modules() if isinstance(m, _NormBase)]
    for module in mixing:
        module.train(not running_norms)
    batch_norms = not running_norms and any("Batch" in type(m).__name__ for m in mixing)
    if not batch_norms:
        args, kwargs = _first_example((args, kwargs), traced.batch)
    draws = gaussian_draws(traced, model, gain)
    apart = weights_apart(traced, [draw.parameter for draw in draws])
    spread = {module_name(y): (y.gain if gain is None else gain) / y.fan_in for y in traced.layers}
    return Subject(
        model=own,
        args=args,
        kwargs=kwargs,
        readout=parse_readout(readout, traced),
        draws=draws,
        scales=_scales(own, draws, apart, standard),
        seed=seed,
        custom=redraw,
        fresh=fresh_modules(own, apart, spread) if redraw is None else (),
    )


def _copy(model: nn.Module) -> nn.Module:
    parameters = list(model.parameters())
    if not parameters:
        raise AnalysisError("the model has no parameters", advice="there is nothing to measure")
    if any(p.is_meta for p in parameters):
        raise AnalysisError(
            "parameters are on the meta device: nothing can be run",
            advice="use estimator 'analytic', or build the model on a real device",
        )
    try:
        own = deep_copy(model)
    except Exception as error:  # a user's module may refuse in any way
        if short_of_memory(error):
            raise
        raise AnalysisError(
            f"the model cannot be copied: {type(error).__name__}: {error}",
            advice="make it deep-copyable, or use estimator 'analytic'",
        ) from error
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in parameters):
        own = own.float()
    for parameter in own.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return own


def _scales(
    model: nn.Module, draws: tuple[Draw, ...], apart: tuple[str, ...], standard: bool
) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters() if p.is_floating_point()}
    if standard:
        return dict.fromkeys(names.values(), 1.0)
    found: dict[str, float] = {}
    for draw in draws:
        parameter = model.get_parameter(draw.parameter)
        if id(parameter) not in names:
            raise AnalysisError(
                f"'{draw.parameter}' is {parameter.dtype}: draws are real numbers",
                advice="use estimator 'analytic'",
            )
        found[names[id(parameter)]] = draw.scale
    weights = {name: model.get_parameter(name) for name in apart}
    found |= {names[id(w)]: mean_square(w) for w in weights.values() if w.dim() > 1}
    return {name: scale for name, scale in found.items() if scale > 0}


def _arguments(traced: TracedModel, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if inputs is None:
        generator = torch.Generator().manual_seed(0)
        shapes = [op.shape for op in traced.ops if op.target == "input"]
        return tuple(torch.randn(shape, generator=generator) for shape in shapes), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def _first_example(inputs: Any, batch: int) -> Any:
    """The inputs cut to one example, where every tensor has the batch as its first axis."""
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    if any(t.dim() == 0 or t.shape[0] != batch for t in tensors):
        return inputs
    return pytree.tree_map(lambda leaf: leaf[:1] if isinstance(leaf, Tensor) else leaf, inputs)
