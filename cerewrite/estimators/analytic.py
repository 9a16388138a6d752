"""The closed form: (q, T) propagation, one derivative (docs/theory.md, sections 4, 5 and 21)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError, NoClosedFormError, ZeroKernelError
from cerewrite.estimators.base import (
    Assumption,
    Corrections,
    Estimator,
    LayerCorrection,
    register,
    require_first_output,
)
from cerewrite.estimators.outputs import counted_names
from cerewrite.estimators.route import route
from cerewrite.ir import Estimate, Layer, Op, TracedModel
from cerewrite.kernel.attended import add_heads
from cerewrite.kernel.batch import ASSUMED, LEAST
from cerewrite.kernel.growth import nominal_value
from cerewrite.kernel.influence import Influence, Noise, influences
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.scattering import Draws
from cerewrite.kernel.values import Moments, gaussian_value, scalar
from cerewrite.ops import rule_for

ASSUMPTIONS = (
    "maps are spatially constant (rho = 1): far too high on most convolutions, no bound with norms",
    "inputs have mean square 1 and vary; batch norms see as many examples as the model was traced "
    f"with, or {ASSUMED} if those are fewer than {LEAST}",
)


SCATTERED = 3.0
"""Sum of corrections above which nu is composed of them: too heavy a tail to draw."""

ROUGH = {
    "batch_norm": "batch norms: nu comes out within 10 % or so on dense networks, several times "
    "too high on convolutions, and ten times and more where gates stand between them, as in deep "
    "networks with squeeze-excite",
    "vector_norm": "lengths over positions are those of positions that are alike; the channels' "
    "mean that a response norm divides by scatters as their root mean square does",
    "attention": "attention takes positions as independent of each other where its heads scatter, "
    "and passes its values as if its weights were uniform",
}
"""Rules whose closed form is known to be rough, and what a report says of them."""


@register
class Analytic(Estimator):
    """Closed form for any graph whose operators have rules; needs neither weights nor data."""

    name = "analytic"
    reference = "docs/theory.md 4 and 5; Hanin & Nica (1909.05989), Littwin et al. (2001.10460)"

    def estimate(
        self, traced: TracedModel, model: nn.Module, example_inputs: Any, assumption: Assumption
    ) -> Corrections:
        """See `Estimator.estimate`; ``example_inputs`` are not looked at.

        Raises:
            AnalysisError: if an operator on the way has no closed form, or the read-out is not the
                first output.
        """
        require_first_output(assumption.readout, traced)
        standard = assumption.parametrization == "standard"
        first = MomentContext(model, traced, standard=standard, gain=assumption.gain)
        with torch.enable_grad():
            noise = influences(propagate(traced, first), first)
            add_heads(noise, first.heads)
        layers = tuple(
            _correction(layer, noise.layers.get(layer.name, [])) for layer in traced.layers
        )
        total = sum(layer.kappa for layer in layers)
        return Corrections(
            layers=layers,
            nu=_scattered(traced, first, noise) if total <= SCATTERED else None,
            assumptions=(*ASSUMPTIONS, *_rough(traced), *_beyond(total)),
            ungrouped=True,
        )


def _scattered(traced: TracedModel, first: MomentContext, noise: Noise) -> Estimate | None:
    """Nu by drawing every average over units and propagating; None where nothing scatters."""
    if not any(scatter.any() for _, scatter in noise.scatter):
        return None
    draws = Draws(noise, first.shifts)
    with torch.no_grad():
        kernel = propagate(traced, first.replay(draws))
    value = draws.relative_variance(kernel[1:].numpy() / float(kernel[0]))
    return Estimate(value, None, 0, Analytic.name, Analytic.reference)


def _beyond(total: float) -> tuple[str, ...]:
    """A warning where corrections are too large for an expansion in them."""
    if total <= 1.0:
        return ()
    return (
        f"WARNING: corrections add up to {total:.3g}; above 1 the closed form is an order of "
        "magnitude at best: measure with --estimator monte-carlo",
    )


def _rough(traced: TracedModel) -> tuple[str, ...]:
    """What is approximate about this model beyond the standing assumptions."""
    rules = [rule_for(op) for op in traced.ops]
    names = {rule.name for rule in rules if rule is not None}
    return tuple(text for name, text in ROUGH.items() if name in names)


def propagate(traced: TracedModel, context: MomentContext) -> Tensor:
    """The tangent kernel's diagonal at the model's outputs together, a float64 scalar.

    Raises:
        AnalysisError: if an operator on the way has no rule, or the kernel is zero or infinite.
    """
    output = next(op for op in traced.ops if op.target == "output")
    if not output.inputs:
        raise AnalysisError("the model returns no tensor", advice="analyse a part that does")
    ends = counted_names(traced)
    if not context.route:
        context.route = route(traced, ends, context)
    values: dict[str, Moments | None] = {}
    for name, signals in context.route.items():
        op = context.find(name)
        values[op.name] = context.known(op) or _routed(op, signals, values, context)
    last = [values[name] for name in ends]
    assert all(value is not None for value in last), "what outputs are made of is not optional"
    kernel = torch.stack([context.output(value) for value in last if value is not None]).sum(0)
    nominal = nominal_value(kernel)
    if not kernel.requires_grad and not nominal > 0:
        raise ZeroKernelError(
            "no parameter reaches the output: its tangent kernel is zero",
            advice=ZeroKernelError.ADVICE,
        )
    if nominal == 0:
        raise ZeroKernelError("the tangent kernel is 0", advice=ZeroKernelError.ADVICE)
    if not nominal < math.inf:
        raise AnalysisError(
            f"the tangent kernel is {nominal:g}",
            advice="the signal explodes at this initialisation: try --gain he",
        )
    return kernel


def _routed(
    op: Op, signals: Sequence[str], values: Mapping[str, Moments | None], context: MomentContext
) -> Moments | None:
    """One operator; None for one that only attention's logits need and that has no closed form."""
    read = [values[name] for name in signals]
    if op.name not in context.optional:
        return _step(op, [x for x in read if x is not None], context)
    inputs = [x for x in read if x is not None]
    try:
        return _step(op, inputs, context) if len(inputs) == len(read) else None
    except AnalysisError:
        return None


_INDEXED = frozenset(
    {"index", "gather", "embedding", "take_along_dim", "index_select", "take", "getitem"}
)
"""Operators that pick by whole numbers: what they read otherwise passes."""


def _step(op: Op, inputs: list[Moments], context: MomentContext) -> Moments:
    if op.target == "input":
        features = math.prod(op.shape[1:]) or 1
        return gaussian_value(scalar(1.0), scalar(0.0), overlap=features**-0.5)
    if op.target in ("parameter", "constant"):
        return context.parameter(op)
    rule = rule_for(op)
    if not op.is_integral and op.target not in _INDEXED:
        _refuse_decisions(op, context)
    if rule is None and op.is_integral:  # which values are picked, not what they are
        return gaussian_value(scalar(1.0), scalar(0.0), constant=True)
    if rule is None:
        raise NoClosedFormError(
            f"no closed form for the operator '{op.target}' in '{op.module or 'the model'}'",
            advice=NoClosedFormError.ADVICE,
        )
    return rule.moments(op, inputs, context)


def _refuse_decisions(op: Op, context: MomentContext) -> None:
    """Refuse arithmetic with whole numbers or truth values that are made of signals.

    Raises:
        NoClosedFormError: if an operand is one of these.
    """
    for read in context.operands(op):
        if read.is_integral and rule_for(read) is None and context.known(read) is None:
            raise NoClosedFormError(
                f"no closed form for '{op.target}' with what '{read.target}' decides in "
                f"'{op.module or 'the model'}'",
                advice=NoClosedFormError.ADVICE,
            )


def _correction(layer: Layer, found: list[Influence]) -> LayerCorrection:
    """A layer's correction; its moments are averages over kinds of units, by their kappas."""
    if not found:
        return LayerCorrection(
            layer.name, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, None, "read-out: no width behind it"
        )
    kappa = sum(at.kappa / at.units for at in found)
    v_aa, v_bb, v_ab = (
        sum(getattr(at, name) * at.kappa for at in found) / (sum(at.kappa for at in found) or 1.0)
        for name in ("v_aa", "v_bb", "v_ab")
    )
    up, down = (
        math.fsum(at.forward_share for at in found),
        math.fsum(at.backward_share for at in found),
    )
    scatter = v_aa * up * up + v_bb * down * down + 2 * v_ab * up * down
    return LayerCorrection(
        layer=layer.name,
        forward_share=up,
        backward_share=down,
        v_aa=v_aa,
        v_bb=v_bb,
        v_ab=v_ab,
        rho=1.0,
        kappa=kappa,
        c_norm=kappa * layer.out_channels - scatter,
    )
