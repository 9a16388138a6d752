r"""The spatial factor of convolutions, from the inputs' second moments (docs/theory.md, eq. 86).

The inputs' second moments over pairs of points are propagated with the tangent kernel, both as
matrices, and log K is differentiated by every average over units: ``A_j`` by the second moments
and ``R_j`` by the kernel that layer j reads. One unit, a Gaussian field per layer that writes
into it, moves log K by ``psi / n`` with::

    psi = sum_j y_j' A_j y_j + sum_k b_k' T_k b_k,     b_k = sum_j (dy_j/dg_k)' r_j

with signals r_j of covariance R_j: the formula of `influence` with fields instead of numbers;
Var[psi] is taken over drawn fields. For constant maps it is that formula, and rho = 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError, ZeroKernelError
from cerewrite.estimators.base import Assumption
from cerewrite.estimators.maps.fields import draw
from cerewrite.estimators.maps.stem import examples_of
from cerewrite.estimators.maps.values import Value
from cerewrite.estimators.maps.walk import Walk
from cerewrite.ir import TracedModel

_ZERO = torch.zeros((), dtype=torch.float64)


def spatial_kappas(
    traced: TracedModel, model: nn.Module, maps: Tensor, assumption: Assumption
) -> list[tuple[frozenset[str], float]]:
    """Variance of log K by one unit of each layer's width class, on maps.

    Args:
        traced: the model's trace.
        model: the module, asked for its norms' scales.
        maps: example inputs ``[examples, channels, *positions]``; K is the first's.
        assumption: parametrisation, gain and seed.

    Returns:
        kappa times the width per width class, with the layers that write it.

    Raises:
        AnalysisError: if an operator has no rule for maps, maps are too large, or the tangent
            kernel is zero or infinite.
    """
    examples = examples_of(traced, maps, running=assumption.norms == "eval")
    with torch.enable_grad():
        walk = Walk(traced, model, maps[:examples], assumption)
        values: dict[str, Any] = {}
        last = {name: op.name for op in traced.ops for name in op.inputs}
        needed = reached(traced)
        for op in traced.ops:
            if op.name not in needed:
                continue
            if op.target == "output":
                return _variances(walk, values[op.inputs[0]])
            if op.target == "input":
                values[op.name] = walk.start
            elif op.target not in ("parameter", "constant"):
                used = [values[name] for name in op.inputs if name in values]
                values[op.name] = walk.step(op, used)
                for name in op.inputs:
                    if last[name] == op.name:
                        values.pop(name, None)
    raise AssertionError("a trace has an output")


def reached(traced: TracedModel) -> frozenset[str]:
    """Operators that the first output depends on, itself included."""
    ops = {op.name: op for op in traced.ops}
    output = next(op for op in traced.ops if op.target == "output")
    found, stack = {output.name}, list(output.inputs[:1])
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack += ops[name].inputs
    return frozenset(found)


def _variances(walk: Walk, output: Value) -> list[tuple[frozenset[str], float]]:
    count = prod(output.shape)
    kernel = output.field.theta[:count, :count].mean()
    if float(kernel.detach()) == 0:
        raise ZeroKernelError("the tangent kernel is 0", advice=ZeroKernelError.ADVICE)
    if not 0 < float(kernel.detach()) < float("inf"):
        raise AnalysisError(
            f"the tangent kernel is {float(kernel.detach()):g}", advice="try --gain he"
        )
    asked = [
        m for read in walk.reads for m in (read.field.sigma, read.field.theta, read.field.mean)
    ]
    slopes = torch.autograd.grad(kernel.log(), asked, allow_unused=True)
    effects: dict[frozenset[str], Tensor] = {}
    signal = _ZERO
    for at, read in enumerate(walk.reads):
        forward, backward, shift = slopes[3 * at : 3 * at + 3]
        if forward is not None and read.layers:
            fields = read.units.detach()
            effect = ((fields @ forward) * fields).sum(1)
            effect = effect if shift is None else effect + fields @ shift
            effects[read.layers] = effects.get(read.layers, _ZERO) + effect
        if backward is not None and read.layers:
            sent = draw(backward, walk.noise(len(backward)))
            signal = signal + (sent * read.units).sum()
    leaves = [leaf.units for leaf in walk.leaves.values()]
    found = torch.autograd.grad(signal, leaves, allow_unused=True)
    for (name, leaf), back in zip(walk.leaves.items(), found, strict=True):
        if back is not None:
            key = frozenset({name})
            effects[key] = effects.get(key, _ZERO) + leaf.energy(back)
    return _by_class(effects)


def _by_class(effects: Mapping[frozenset[str], Tensor]) -> list[tuple[frozenset[str], float]]:
    """Variances of the sums over layers that meet in a unit."""
    groups: list[tuple[set[str], Tensor]] = []
    for layers, effect in effects.items():
        joined, total = set(layers), effect
        for group in [g for g in groups if g[0] & joined]:
            joined, total = joined | group[0], total + group[1]
            groups.remove(group)
        groups.append((joined, total))
    return [(frozenset(names), float(total.var())) for names, total in groups]
