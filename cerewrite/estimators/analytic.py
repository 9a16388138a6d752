"""The closed form: (q, T) propagation and one reverse-mode derivative (THEORY 4 and 5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.estimators.base import (
    Assumption,
    Corrections,
    Estimator,
    LayerCorrection,
    register,
)
from cerewrite.ir import Layer, Op, TracedModel
from cerewrite.oprules import LayerRule, ModuleRule, rule_for
from cerewrite.oprules.attention import MatMul, Softmax
from cerewrite.oprules.layout import Passing
from cerewrite.oprules.moments import Fluctuation, MomentContext, Reading
from cerewrite.oprules.values import Moments, scalar

ASSUMPTIONS = (
    "maps are spatially constant (rho = 1): an upper bound for convolutions on real images",
    "inputs have mean square 1; batch norms use the statistics of a large, varied batch",
)


ROUGH = {
    "concatenate": "concatenated channels are read by each reader on its own: to about a tenth",
    "multiply": "products of branches are taken as independent: nu can come out low by half",
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
        """See `Estimator.estimate`; ``example_inputs`` are not looked at."""
        context = MomentContext(
            model,
            traced,
            standard=assumption.parametrization == "standard",
            gain=assumption.gain,
        )
        with torch.enable_grad():
            kernel = propagate(traced, context)
            shares, divided = _shares(kernel, context.fluctuations)
        return Corrections(
            layers=tuple(
                _correction(
                    layer,
                    shares.get(layer.name, []),
                    divided.get(layer.name, 0.0),
                    context.fluctuations.get(layer.name),
                )
                for layer in traced.layers
            ),
            nu=None,
            assumptions=(*ASSUMPTIONS, *_rough(traced)),
        )


def _rough(traced: TracedModel) -> tuple[str, ...]:
    """What is approximate about this model beyond the standing assumptions."""
    rules = [rule_for(op) for op in traced.ops if len(op.inputs) > 1]
    names = {rule.name for rule in rules if rule is not None}
    return tuple(text for name, text in ROUGH.items() if name in names)


def propagate(traced: TracedModel, context: MomentContext) -> Tensor:
    """The tangent kernel's diagonal at the model's first output, a float64 scalar.

    Raises:
        AnalysisError: if an operator on the way has no rule, or the kernel is zero or infinite.
    """
    ops = {op.name: op for op in traced.ops}
    output = next(op for op in traced.ops if op.target == "output")
    if not output.inputs:
        raise AnalysisError("the model returns no tensor", advice="analyse a part that does")
    weights = _attention_weights(traced)
    needed = _ancestors(ops, output.inputs[0], weights)
    context.readers.update(
        name for op in traced.ops if op.name in needed for name in _signals(ops, op, weights)
    )
    rules = {op.name: rule_for(op) for op in traced.ops if op.name in needed}
    context.joined = frozenset(
        source
        for op in traced.ops
        if (rule := rules.get(op.name)) is not None and rule.name == "concatenate"
        for source in (op.name, *op.inputs)
    )
    values: dict[str, Moments] = {}
    for op in traced.ops:
        if op.name in needed:
            inputs = [values[name] for name in _signals(ops, op, weights)]
            values[op.name] = _step(op, inputs, context)
    kernel = values[output.inputs[0]].kernel
    if not kernel.requires_grad and not float(kernel) > 0:
        raise AnalysisError(
            "no parameter reaches the output: its tangent kernel is zero",
            advice="check for zero-initialised heads: --gain he analyses the architecture",
        )
    if not 0 < float(kernel.detach()) < math.inf:
        raise AnalysisError(
            f"the tangent kernel is {float(kernel.detach()):g}",
            advice="the signal dies or explodes at this initialisation: try --gain he",
        )
    return kernel


def _attention_weights(traced: TracedModel) -> frozenset[str]:
    """Values that are a softmax over positions, moved or dropped at most.

    What they weigh passes as it is (`cerewrite.oprules.attention`), so that neither they nor the
    logits in front of them are needed there.
    """
    found: set[str] = set()
    for op in traced.ops:
        rule = rule_for(op)
        if isinstance(rule, Softmax) or (
            isinstance(rule, Passing) and op.inputs and op.inputs[0] in found
        ):
            found.add(op.name)
    return frozenset(found)


def _ancestors(ops: dict[str, Op], name: str, weights: frozenset[str]) -> set[str]:
    found: set[str] = set()
    stack = [name]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            stack += _signals(ops, ops[current], weights)
    return found


def _signals(ops: dict[str, Op], op: Op, weights: frozenset[str]) -> list[str]:
    """What an operator reads, less the weights of a layer or norm, and attention's weights."""
    rule = rule_for(op)
    if isinstance(rule, MatMul):
        return [name for name in op.inputs if name not in weights] or list(op.inputs)
    if not isinstance(rule, LayerRule | ModuleRule):
        return list(op.inputs)
    return list(op.inputs[:1])


def _step(op: Op, inputs: list[Moments], context: MomentContext) -> Moments:
    if op.target == "input":
        return Moments(scalar(1.0), scalar(0.0))
    if op.target in ("parameter", "constant"):
        return context.parameter(op)
    rule = rule_for(op)
    if rule is None:
        raise AnalysisError(
            f"no closed form for the operator '{op.target}' in '{op.module or 'the model'}'",
            advice="register a rule for it, or use an estimator that measures",
        )
    return rule.moments(op, inputs, context)


Shares = dict[str, list[tuple[float, float]]]


def _shares(
    kernel: Tensor, fluctuations: dict[str, Fluctuation]
) -> tuple[Shares, dict[str, float]]:
    """f_up and f_dn per reading, the norm's share per layer: one derivative of log K."""
    leaves = [
        leaf
        for at in fluctuations.values()
        for reading in at.readings
        for leaf in (reading.forward, reading.backward)
    ]
    norms = [at.norm for at in fluctuations.values() if at.norm is not None]
    if not leaves:
        return {}, {}
    slopes = torch.autograd.grad(kernel.log(), [*leaves, *norms], allow_unused=True)
    flat = iter([0.0 if slope is None else float(slope) for slope in slopes])
    shares = {
        name: [(next(flat), next(flat)) for _ in at.readings] for name, at in fluctuations.items()
    }
    divided = {name: next(flat) for name, at in fluctuations.items() if at.norm is not None}
    return shares, divided


def _correction(
    layer: Layer, shares: list[tuple[float, float]], norm: float, at: Fluctuation | None
) -> LayerCorrection:
    if at is None:
        return LayerCorrection(
            layer.name, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, None, "read-out: no width behind it"
        )
    up, down = (sum(column) for column in zip(*shares, strict=True))
    v_aa, v_bb, v_ab = _joint(shares, at.readings)
    scatter = v_aa * up * up + v_bb * down * down + 2 * v_ab * up * down
    c_norm = at.v_norm * norm * norm
    return LayerCorrection(
        layer=layer.name,
        f_up=up,
        f_dn=down,
        v_aa=v_aa,
        v_bb=v_bb,
        v_ab=v_ab,
        rho=1.0,
        kappa=(max(scatter, 0.0) + c_norm) / layer.out_channels,
        c_norm=c_norm,
    )


def _joint(
    shares: list[tuple[float, float]], readings: list[Reading]
) -> tuple[float, float, float]:
    """The (co)variances that one reading with the summed shares would need."""
    if len(readings) == 1:
        only = readings[0]
        v_aa, v_bb, v_ab = only.moments.spread(only.fresh, only.fixed)
        return v_aa * only.part, v_bb * only.part, v_ab * only.part
    aa = bb = ab = 0.0
    for i, (first, (up, down)) in enumerate(zip(readings, shares, strict=True)):
        own = first.moments.spread(first.fresh, first.fixed)
        aa += first.part * own[0] * up * up
        bb += first.part * own[1] * down * down
        ab += first.part * own[2] * up * down
        for second, (above, below) in zip(readings[:i], shares[:i], strict=True):
            fresh, part = min(first.fresh, second.fresh), min(first.part, second.part)
            cross = first.moments.cross(second.moments, fresh, (*first.fixed, *second.fixed))
            aa += 2 * part * cross[0] * up * above
            bb += 2 * part * cross[1] * down * below
            ab += part * (cross[2] * up * below + cross[3] * down * above)
    up, down = (sum(column) for column in zip(*shares, strict=True))
    return _over(aa, up * up), _over(bb, down * down), _over(ab, up * down)


def _over(value: float, share: float) -> float:
    return value / share if share else 0.0
