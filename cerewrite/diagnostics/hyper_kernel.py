"""Hyper-kernel: the kernels of gates, and the order of the Taylor terms that survive."""

from __future__ import annotations

import torch
from torch import Tensor

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material, float_outputs
from cerewrite.diagnostics.tap import Joined, watch

ORDERS = 4
"""Highest Taylor term that is looked at."""

SURVIVES = 0.01
"""Share of the first-order term above which a higher one survives."""

STEP = 0.25
"""Spacing of the central differences, in units of the step."""


@register
class HyperKernel(Diagnostic):
    """At every product of two trained values: whose kernel it is, and how far they mix."""

    name = "hyper-kernel"
    title = "hyper-kernel of gates"
    formula = (
        "K_ab = K_a q_b + q_a K_b + cross for p = v . (a b): K_a with b held, K_b with a held, "
        "shares |cross| / K_ab and min(K_a, K_b) / K_ab; Taylor terms |h^(r)(0)| t^r / r! of "
        "h(t) = f(w + t g), g = df / dw, t such that the first is the outputs' deviation"
    )
    source = "Littwin et al., On the Optimization Dynamics of Wide Hypernetworks (2003.12193)"
    caveats = (
        "One random read-out v; the terms are central differences, and kinks blur them.",
        f"A term survives above {SURVIVES:g} of the first.",
    )
    needs = "inputs"

    def cost(self, material: Material) -> Passes:
        """Two backward passes a product, one of f, and the differences' forward passes."""
        return Passes(2 + ORDERS, 1 + 2 * max(_products(material), 1))

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        seen = watch(material, slopes=False)
        if not seen.products:
            raise NotApplicableError(
                "the model multiplies no two trained values",
                advice="hyper-kernels are of gates, attention by hand and hypernetworks",
            )
        mixed, lesser = {}, {}
        for joined in seen.products:
            gate = _gate(material, joined)
            if gate is not None:
                mixed[joined.where], lesser[joined.where] = gate
        if not mixed:
            raise NotApplicableError(
                "no parameter reaches both sides of a product", advice="draw the weights anew"
            )
        terms = taylor_terms(material)
        alive = [r for r, term in enumerate(terms, 1) if term >= SURVIVES * terms[0]]
        figures = {
            "cross share": sum(mixed.values()) / len(mixed),
            "lesser kernel's share": sum(lesser.values()) / len(lesser),
            "surviving order": float(max(alive, default=0)),
        }
        figures |= {f"term {r}": term for r, term in enumerate(terms, 1)}
        return Reading(figures, {"cross share": mixed, "lesser kernel's share": lesser})


def _products(material: Material) -> int:
    muls = [op for op in material.traced.ops if op.target.rstrip("_") == "mul"]
    return sum(len(op.inputs) > 1 for op in muls)


def _gate(material: Material, joined: Joined) -> tuple[float, float] | None:
    """Shares of the cross term and of the lesser kernel at one product."""
    generator = torch.Generator().manual_seed(material.seed)
    shape = torch.broadcast_shapes(joined.left.shape, joined.right.shape)
    v = torch.randn(shape, generator=generator, dtype=torch.float64).to(joined.left)
    own = list(material.parameters().values())
    sides: list[list[Tensor | None]] = []
    for edge, value, other in (
        (joined.edges[0], joined.left, joined.right),
        (joined.edges[1], joined.right, joined.left),
    ):
        weight = (v * other).sum_to_size(value.shape)
        found = torch.autograd.grad(edge, own, weight, retain_graph=True, allow_unused=True)
        sides.append(list(found))
    squares = [sum(float(g.double().square().sum()) for g in s if g is not None) for s in sides]
    cross = 2 * sum(
        float((a * b).double().sum())
        for a, b in zip(*sides, strict=True)
        if a is not None and b is not None
    )
    whole = sum(squares) + cross
    if min(squares) <= 0 or whole <= 0:
        return None
    return abs(cross) / whole, min(squares) / whole


def taylor_terms(material: Material) -> list[float]:
    """Sizes of the Taylor terms of orders 1 to 4 along the gradient, in units of f's deviation.

    f is the sum over the outputs with fixed random signs, divided by the examples; the step is
    such that its first-order change is the deviation of f over the examples.
    """
    own = material.parameters()
    f = _read_out(material)
    gradient = material.gradient(f.mean())
    square = sum(float(g.double().square().sum()) for g in gradient.values())
    deviation = float(f.detach().std()) if len(f) > 1 else float(f.detach().abs().mean())
    if square == 0 or deviation == 0:
        raise NotApplicableError("the read-out does not move", advice="draw the weights anew")
    step = deviation / square
    values = []
    kept = {name: p.detach().clone() for name, p in own.items()}
    try:
        for place in (-2, -1, 0, 1, 2):
            with torch.no_grad():
                for name, p in own.items():
                    p.copy_(kept[name] + place * STEP * step * gradient[name])
                values.append(float(_read_out(material).mean()))
    finally:
        with torch.no_grad():
            for name, p in own.items():
                p.copy_(kept[name])
    return [abs(term) / deviation for term in _central(values)]


def _central(y: list[float]) -> list[float]:
    """``h^(r) / r!`` for r from 1 to 4 by central differences; exact for quartics."""
    a, b, c, d, e = y
    return [
        (a - 8 * b + 8 * d - e) / (12 * STEP),
        (-a + 16 * b - 30 * c + 16 * d - e) / (12 * STEP**2) / 2,
        (-a + 2 * b - 2 * d + e) / (2 * STEP**3) / 6,
        (a - 4 * b + 6 * c - 4 * d + e) / STEP**4 / 24,
    ]


def _read_out(material: Material) -> Tensor:
    """One number per example: the first output's elements with fixed random signs, float64."""
    output = float_outputs_loose(material)
    generator = torch.Generator().manual_seed(material.seed)
    signs = torch.randint(2, output.shape[1:], generator=generator, dtype=torch.float64) * 2 - 1
    return (output.double() * signs.to(output.device)).flatten(1).sum(1)


def float_outputs_loose(material: Material) -> Tensor:
    """The first floating-point output, whether or not gradients are on."""
    from cerewrite.diagnostics.material import float_outputs_or_first

    output = float_outputs_or_first(material.run())
    return output if output.dim() > 1 else output[:, None]
