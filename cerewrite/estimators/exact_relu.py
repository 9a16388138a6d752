"""Exact moments of a ReLU chain: five second moments close (docs/theory.md, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from cerewrite.errors import AnalysisError
from cerewrite.estimators.analytic import Analytic
from cerewrite.estimators.base import Assumption, Corrections, Estimator, register
from cerewrite.ir import Estimate, Layer, Op, TracedModel

_SILENT = frozenset({"input", "parameter", "constant", "output", "dropout", "flatten"})


def exact_relu_nu(
    widths: Sequence[int], *, multiplicity: int = 1, lambdas: Sequence[float] | None = None
) -> float:
    """Nu of a ReLU chain without biases, Gaussian weights, scalar output; exact, dimensionless.

    The masks are independent of every even statistic, so ``E|a|^4``, ``E[|a|^2 tr M]``,
    ``E[(tr M)^2]``, ``E[tr(M^2)]`` and ``E[a' M a]`` close, with a the activations of a layer
    and M the masked tangent kernel of its units. The input and all gains drop out.

    Args:
        widths: widths of one member's hidden layers, at least 1 each.
        multiplicity: members whose outputs are summed over ``sqrt(multiplicity)``.
        lambdas: weight of each layer's parameters in the kernel, hidden layers first, read-out
            last, in units of the NTK parametrisation's; all 1 if not given.

    Returns:
        nu, at least 0.

    Raises:
        AnalysisError: if a width, the multiplicity or the lambdas make no sense.

    References:
        docs/theory.md, section 3; Hanin & Nica (1909.05989), theorem 1, bounds it by
        ``exp(5 sum 1/n) - 1``.

    Example:
        >>> round(exact_relu_nu([32]), 7), round(exact_relu_nu([32, 32]), 7)
        (0.09375, 0.2136502)
        >>> exact_relu_nu([32, 32], multiplicity=4) == exact_relu_nu([32, 32]) / 4
        True
    """
    weights = [1.0] * (len(widths) + 1) if lambdas is None else [float(x) for x in lambdas]
    _check(widths, multiplicity, weights)
    a, t = 1.0, 0.0
    x1, x2, x3, x4, x5 = 1.0, 0.0, 0.0, 0.0, 0.0
    for n, weight in zip(widths, weights[:-1], strict=True):
        # pre-activations scaled by s = 2 / n, the next fan-in's: the mean energy stays 1
        s = 2.0 / n
        fresh = weight * weight * x1 + 2 * weight * x2 + x3
        crossed = weight * x1 + x2
        off, di = n * (n - 1) / 4 * s * s, n / 2 * s * s
        x2, x3 = off * crossed + di * (crossed + 2 * x5), off * fresh + di * (fresh + 2 * x4)
        x4, x5 = off * x4 + di * (fresh + 2 * x4), off * x5 + di * (crossed + 2 * x5)
        x1 = (off + 3 * di) * x1
        t += weight * a
    last = weights[-1]
    mean = last * a + t
    second = last * last * x1 + 2 * last * x2 + x3 + 2 * x4
    return (second / mean**2 - 1.0) / multiplicity


def _check(widths: Sequence[int], multiplicity: int, lambdas: Sequence[float]) -> None:
    if any(width < 1 for width in widths) or multiplicity < 1:
        raise AnalysisError(
            f"widths {list(widths)} with {multiplicity} members",
            advice="give widths and a multiplicity of at least 1",
        )
    if len(lambdas) != len(widths) + 1 or min(lambdas) < 0 or not sum(lambdas) > 0:
        raise AnalysisError(
            f"{len(lambdas)} lambdas {list(lambdas)} for {len(widths)} hidden layers",
            advice="give one per hidden layer and one for the read-out, none negative, not all 0",
        )


@register
class ExactRelu(Estimator):
    """Exact nu of plain ReLU chains; the per-layer split is the closed form's."""

    name = "exact-relu"
    reference = "docs/theory.md 3; exact second moments of a ReLU chain"

    def estimate(
        self, traced: TracedModel, model: nn.Module, example_inputs: Any, assumption: Assumption
    ) -> Corrections:
        """See `Estimator.estimate`.

        Raises:
            AnalysisError: if the model is not a chain of linear layers without biases, with a
                ReLU after each but the last, or of members that are such chains.
        """
        layers = _chain(traced, assumption)
        gains = [layer.gain if assumption.gain is None else assumption.gain for layer in layers]
        lambdas = [1.0] * len(layers)
        if assumption.parametrization == "standard":
            lambdas = [layer.fan_in / gain for layer, gain in zip(layers, gains, strict=True)]
        members = _members(layers)
        widths = [layer.out_channels // members for layer in layers[:-1]]
        nu = exact_relu_nu(widths, multiplicity=members, lambdas=lambdas)
        split = Analytic().estimate(traced, model, example_inputs, assumption)
        note = "nu is exact for a ReLU chain with Gaussian weights; layers by the closed form"
        return replace(
            split,
            nu=Estimate(nu, None, 0, self.name, self.reference),
            assumptions=(note,),
            ungrouped=False,
        )


def _chain(traced: TracedModel, assumption: Assumption) -> tuple[Layer, ...]:
    """The layers of a plain chain."""
    layers = {layer.node: layer for layer in traced.layers}
    expected = "linear"
    for op in traced.ops:
        if op.target in _SILENT or _scales(op):
            continue
        kind = "linear" if op.target == "block_linear" else op.target
        if kind != expected or not _plain(op, layers, assumption):
            raise AnalysisError(
                f"'{op.target}' in '{op.module or 'the model'}' makes it no ReLU chain",
                advice="exact-relu knows bias-free linear layers with a ReLU between them only, "
                "and members that are such chains; use estimator 'analytic'",
            )
        expected = "relu" if expected == "linear" else "linear"
    if expected == "linear" or not traced.layers:
        raise AnalysisError(
            "the model does not end in a linear layer", advice="use estimator 'analytic'"
        )
    return traced.layers


def _members(layers: Sequence[Layer]) -> int:
    """Members of a chain: all layers between the first and the last have as many blocks.

    Raises:
        AnalysisError: if they have not.
    """
    found = {layer.groups for layer in layers[1:-1]} or {1}
    if len(found) > 1 or layers[0].groups > 1 or layers[-1].groups > 1:
        raise AnalysisError(
            f"its layers have {', '.join(str(layer.groups) for layer in layers)} groups",
            advice="exact-relu knows members that span all layers; use estimator 'analytic'",
        )
    return found.pop()


def _scales(op: Op) -> bool:
    """Whether an operator multiplies by a number above 0, which drops out of nu."""
    by = op.args[1] if len(op.args) > 1 else None
    return op.target in ("mul", "multiply") and isinstance(by, int | float) and by > 0


def _plain(op: Op, layers: dict[str, Layer], assumption: Assumption) -> bool:
    """Whether a layer has biases neither in the signal nor in the kernel."""
    if op.target == "relu":
        return True
    layer = layers.get(op.name)
    if layer is None or (layer.bias and assumption.parametrization == "standard"):
        return False
    gain = layer.gain if assumption.gain is None else assumption.gain
    return gain > 0 and (assumption.gain is not None or layer.bias_variance == 0.0)
