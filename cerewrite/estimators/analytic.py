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
from cerewrite.oprules.moments import Fluctuation, MomentContext, Moments, scalar

ASSUMPTIONS = (
    "maps are spatially constant (rho = 1): an upper bound for convolutions on real images",
    "inputs have mean square 1; batch norms use the statistics of a large, varied batch",
)


ROUGH = {
    "concatenate": "concatenations are read as they stand: nu can come out low by half",
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
            shares = _shares(kernel, context.fluctuations)
        return Corrections(
            layers=tuple(
                _correction(layer, shares.get(layer.name), context.fluctuations.get(layer.name))
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
    needed = _ancestors(ops, output.inputs[0])
    context.readers.update(
        name for op in traced.ops if op.name in needed for name in _signals(ops, op)
    )
    values: dict[str, Moments] = {}
    for op in traced.ops:
        if op.name in needed:
            inputs = [values[name] for name in _signals(ops, op)]
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


def _ancestors(ops: dict[str, Op], name: str) -> set[str]:
    found: set[str] = set()
    stack = [name]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            stack += _signals(ops, ops[current])
    return found


def _signals(ops: dict[str, Op], op: Op) -> list[str]:
    """What an operator reads, less the parameters that belong to its own module."""
    if not isinstance(rule_for(op), LayerRule | ModuleRule):
        return list(op.inputs)
    return [name for name in op.inputs if ops[name].target not in ("parameter", "constant")]


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


def _shares(
    kernel: Tensor, fluctuations: dict[str, Fluctuation]
) -> dict[str, tuple[float, float, float]]:
    """f_up, f_dn and the norm's share of every layer: one reverse-mode derivative of log K."""
    if not fluctuations:
        return {}
    still = torch.zeros((), dtype=torch.float64, requires_grad=True)
    leaves = [
        leaf
        for f in fluctuations.values()
        for leaf in (f.forward, f.backward, still if f.norm is None else f.norm)
    ]
    slopes = torch.autograd.grad(kernel.log(), leaves, allow_unused=True)
    flat = [0.0 if slope is None else float(slope) for slope in slopes]
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return dict(zip(fluctuations, triples, strict=True))


def _correction(
    layer: Layer, share: tuple[float, float, float] | None, at: Fluctuation | None
) -> LayerCorrection:
    if share is None or at is None:
        return LayerCorrection(
            layer.name, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, None, "read-out: no width behind it"
        )
    up, down, norm = share
    scatter = at.v_aa * up * up + at.v_bb * down * down + 2 * at.v_ab * up * down
    c_norm = at.v_norm * norm * norm
    return LayerCorrection(
        layer=layer.name,
        f_up=up,
        f_dn=down,
        v_aa=at.v_aa,
        v_bb=at.v_bb,
        v_ab=at.v_ab,
        rho=1.0,
        kappa=(max(scatter, 0.0) + c_norm) / layer.out_channels,
        c_norm=c_norm,
    )
