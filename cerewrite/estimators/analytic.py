"""The closed form: (q, T) propagation and one reverse-mode derivative (THEORY 4 and 5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError, NoClosedFormError
from cerewrite.estimators.base import (
    Assumption,
    Corrections,
    Estimator,
    LayerCorrection,
    register,
    require_first_output,
)
from cerewrite.ir import Estimate, Layer, Op, TracedModel
from cerewrite.kernel.batch import ASSUMED, LEAST, Batch, batch_of
from cerewrite.kernel.growth import nominal_value
from cerewrite.kernel.influence import Influence, Noise, influences
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.scattering import Draws
from cerewrite.kernel.values import Moments, gaussian_value, scalar
from cerewrite.ops import LayerRule, ModuleRule, rule_for
from cerewrite.ops.attention import MatMul, ScaledDotProductAttention, Softmax
from cerewrite.ops.divide import Divide, sums_to_one
from cerewrite.ops.layout import Passing
from cerewrite.ops.quotients import quotient

ASSUMPTIONS = (
    "maps are spatially constant (rho = 1): an upper bound for convolutions on real images",
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
    "attention": "attention passes its values: the same vector at every position",
}
"""Rules whose closed form is known to be rough, and what a report says of them."""


@register
class Analytic(Estimator):
    """Closed form for any graph whose operators have rules; needs neither weights nor data."""

    name = "analytic"
    reference = "THEORY 4 and 5; Hanin & Nica (1909.05989), Littwin et al. (2001.10460)"

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
        layers = tuple(
            _correction(layer, noise.layers.get(layer.name, [])) for layer in traced.layers
        )
        total = sum(layer.kappa for layer in layers)
        return Corrections(
            layers=layers,
            nu=_scattered(traced, first, noise) if total <= SCATTERED else None,
            assumptions=(*ASSUMPTIONS, *_rough(traced), *_beyond(total)),
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
    """The tangent kernel's diagonal at the model's first output, a float64 scalar.

    Raises:
        AnalysisError: if an operator on the way has no rule, or the kernel is zero or infinite.
    """
    output = next(op for op in traced.ops if op.target == "output")
    if not output.inputs:
        raise AnalysisError("the model returns no tensor", advice="analyse a part that does")
    if not context.route:
        context.route = _route(traced, output.inputs[0], context)
    values: dict[str, Moments] = {}
    for op, signals in context.route:
        known = context.known(op)
        if known is not None:
            values[op.name] = known
        else:
            values[op.name] = _step(op, [values[name] for name in signals], context)
    kernel = context.output(values[output.inputs[0]])
    nominal = nominal_value(kernel)
    if not kernel.requires_grad and not nominal > 0:
        raise AnalysisError(
            "no parameter reaches the output: its tangent kernel is zero",
            advice="check for zero-initialised heads: --gain he analyses the architecture",
        )
    if not 0 < nominal < math.inf:
        raise AnalysisError(
            f"the tangent kernel is {nominal:g}",
            advice="the signal dies or explodes at this initialisation: try --gain he",
        )
    return kernel


def _route(
    traced: TracedModel, end: str, context: MomentContext
) -> tuple[tuple[Op, tuple[str, ...]], ...]:
    """What a value is made of, in execution order: operators, and what each of them reads."""
    ops = {op.name: op for op in traced.ops}
    weights = _attention_weights(traced)
    needed = _ancestors(ops, end, weights, context)
    context.batched.update(_towards_batch_norms(traced))
    return tuple((op, tuple(_signals(ops, op, weights))) for op in traced.ops if op.name in needed)


def _attention_weights(traced: TracedModel) -> frozenset[str]:
    """Values that are a softmax over positions, or divided by their sum; moved or dropped at most.

    What they weigh passes as it is (`cerewrite.ops.attention`), so that neither they nor the
    logits in front of them are needed there.
    """
    found: set[str] = set()
    ops = {op.name: op for op in traced.ops}
    for op in traced.ops:
        rule = rule_for(op)
        if (
            isinstance(rule, Softmax)
            or (isinstance(rule, Passing) and op.inputs and op.inputs[0] in found)
            or sums_to_one(op, ops)
        ):
            found.add(op.name)
    return frozenset(found)


def _ancestors(
    ops: dict[str, Op], name: str, weights: frozenset[str], context: MomentContext
) -> set[str]:
    found: set[str] = set()
    stack = [name]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            if context.known(ops[current]) is not None:
                continue
            stack += _signals(ops, ops[current], weights)
    return found


def _signals(ops: dict[str, Op], op: Op, weights: frozenset[str]) -> list[str]:
    """What an operator reads, less the weights of a layer or norm, and attention's weights."""
    rule = rule_for(op)
    if isinstance(rule, MatMul):
        return [name for name in op.inputs if name not in weights] or list(op.inputs)
    if isinstance(rule, Divide) and (form := quotient(op, ops.__getitem__)) is not None:
        return [form.source]
    if isinstance(rule, ScaledDotProductAttention):
        return [op.inputs[2]]
    if not isinstance(rule, LayerRule | ModuleRule):
        return list(op.inputs)
    return list(op.inputs[:1])


_TRANSPARENT = frozenset({"add", "concatenate", "identity", "pool", "flatten", "permute", "pick"})
"""Rules that pass what all examples have in common as it is."""


def _towards_batch_norms(traced: TracedModel) -> dict[str, Batch | None]:
    """Layers whose output a batch norm reads: its batch, or None where others read it as well."""
    shapes = {op.name: op.shape for op in traced.ops}
    readers: dict[str, list[Op]] = {}
    for op in traced.ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)

    def ends(name: str, seen: set[str]) -> set[Batch | None]:
        found: set[Batch | None] = set()
        for op in readers.get(name, []):
            rule = rule_for(op)
            kind = "" if rule is None else rule.name
            if kind in _TRANSPARENT and op.name not in seen:
                seen.add(op.name)
                found |= ends(op.name, seen)
            elif kind not in _TRANSPARENT:
                batch = batch_of(op, shapes[op.inputs[0]]) if kind == "batch_norm" else None
                found.add(batch)
        return found

    norms = any(
        rule is not None and rule.name == "batch_norm" for rule in map(rule_for, traced.ops)
    )
    met = {layer.node: ends(layer.node, set()) for layer in traced.layers} if norms else {}
    found: dict[str, Batch | None] = {}
    for name, read in met.items():
        batches = [batch for batch in read if batch is not None]
        if batches:
            least = min(batches, key=lambda batch: batch.examples)
            found[name] = None if None in read else least
    return found


def _step(op: Op, inputs: list[Moments], context: MomentContext) -> Moments:
    if op.target == "input":
        features = math.prod(op.shape[1:]) or 1
        return gaussian_value(scalar(1.0), scalar(0.0), overlap=features**-0.5)
    if op.target in ("parameter", "constant"):
        return context.parameter(op)
    rule = rule_for(op)
    if rule is None:
        raise NoClosedFormError(
            f"no closed form for the operator '{op.target}' in '{op.module or 'the model'}'",
            advice=NoClosedFormError.ADVICE,
        )
    return rule.moments(op, inputs, context)


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
