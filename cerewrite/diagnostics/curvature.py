"""Curvature along the gradient: the Gauss-Newton part G and the rest H."""

from __future__ import annotations

import torch
from torch import Tensor

from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Passes, Reading, register
from cerewrite.diagnostics.material import Material, float_outputs


@register
class Curvature(Diagnostic):
    """How much of the curvature that a gradient step feels is not Gauss-Newton."""

    name = "curvature"
    title = "G against H along the gradient"
    formula = (
        "g' G g / |g|^2 and g' H g / |g|^2, G = J' L'' J, H = sum of dL / dz_k times the second "
        "derivatives of z_k, G + H the Hessian of the loss, z the outputs"
    )
    source = "2001.04878; Schraudolph, Fast Curvature Matrix-Vector Products (2002)"
    caveats = (
        "Along one direction of one batch; activations with kinks have no curvature at the kink.",
    )

    def cost(self, material: Material) -> Passes:
        """One gradient that is differentiated again, one product with J, one with J'."""
        return Passes(1, 7)

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        outputs = material.run()
        z, loss = float_outputs(outputs), material.loss_of(outputs)
        names = list(material.parameters())
        gradient = material.gradient(loss, create_graph=True)
        g = {name: gradient[name].detach() for name in names}
        square = _dot(g, g)
        if square == 0:
            raise NotApplicableError("the gradient is zero", advice="draw the weights anew")
        hessian = _times_hessian(material, gradient, g)
        gauss, newton = _gauss_newton(material, z, loss, g)
        total = _dot(hessian, g)
        rest = {name: hessian[name] - newton[name] for name in names}
        scale = (square * _dot(rest, rest)) ** 0.5
        remaining = total - gauss
        size = abs(gauss) + abs(remaining)
        return Reading(
            {
                "share of H": abs(remaining) / size if size else 0.0,
                "G along g": gauss / square,
                "H along g": remaining / square,
                "cosine of g and H g": remaining / scale if scale else 0.0,
            }
        )


def _times_hessian(
    material: Material, gradient: dict[str, Tensor], vector: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The loss's Hessian times a vector, by differentiating ``g . v``."""
    live = [gradient[name].mul(v).sum() for name, v in vector.items() if _grows(gradient[name])]
    if not live:
        return {name: torch.zeros_like(v) for name, v in vector.items()}
    return material.gradient(torch.stack(live).sum(), retain_graph=True)


def _grows(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _gauss_newton(
    material: Material, z: list[Tensor], loss: Tensor, v: dict[str, Tensor]
) -> tuple[float, dict[str, Tensor]]:
    """``v' G v`` and ``G v``."""
    own = material.parameters()
    # J v by differentiating J' u twice: it is linear in u.
    dummies = [torch.zeros_like(one, requires_grad=True) for one in z]
    pulled = torch.autograd.grad(z, list(own.values()), dummies, create_graph=True, allow_unused=True)
    live = [(w, v[name]) for name, w in zip(own, pulled, strict=True) if w is not None]
    moved = torch.autograd.grad(
        [w for w, _ in live], dummies, [u for _, u in live], retain_graph=True, allow_unused=True
    )
    pushed = [torch.zeros_like(d) if m is None else m for m, d in zip(moved, dummies, strict=True)]
    # L'' J v at the outputs.
    slopes = torch.autograd.grad(loss, z, create_graph=True, allow_unused=True)
    bent = [
        (slope * step).sum()
        for slope, step in zip(slopes, pushed, strict=True)
        if slope is not None and slope.requires_grad
    ]
    if not bent:
        return 0.0, {name: torch.zeros_like(p) for name, p in own.items()}
    q = torch.autograd.grad(torch.stack(bent).sum(), z, retain_graph=True, allow_unused=True)
    forces = [torch.zeros_like(one) if f is None else f for f, one in zip(q, z, strict=True)]
    value = sum(float((a * b).double().sum()) for a, b in zip(forces, pushed, strict=True))
    back = torch.autograd.grad(z, list(own.values()), forces, allow_unused=True)
    product = {
        name: torch.zeros_like(p) if b is None else b
        for (name, p), b in zip(own.items(), back, strict=True)
    }
    return value, product


def _dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return sum(float((a[name] * b[name]).double().sum()) for name in a)
