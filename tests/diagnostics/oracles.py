"""Independent implementations of every diagnostic, by hand on small networks."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp

from cerewrite.diagnostics import kernel_drift, local_map

Figures = dict[str, float]
Oracle = Callable[[nn.Module, Tensor, Tensor], Figures]
Array = NDArray[np.float64]


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def flat(tree: dict[str, Tensor], lead: int = 0) -> Tensor:
    return torch.cat([t.flatten(lead) for t in tree.values()], -1)


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
    plain = untracked(model)
    return lambda p: F.cross_entropy(functional_call(plain, p, (x,)), y, reduction="none")


def untracked(model: nn.Module) -> nn.Module:
    """A copy whose batch norms use the batch and keep nothing."""
    plain = copy.deepcopy(model)
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    return plain


def gradient_norm(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    each = jacrev(losses(model, x, y))(parameters(model))
    mean = {name: g.mean(0).numpy() for name, g in each.items()}
    layers = [g for name, g in mean.items() if name.endswith("weight") and g.ndim > 1]
    return {
        "norm": math.sqrt(sum(float((g**2).sum()) for g in mean.values())),
        "sum of layers": sum(math.sqrt(float((g**2).sum())) for g in layers),
    }


def gradient_confusion(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    rows = flat(jacrev(losses(model, x, y))(parameters(model)), 1).numpy()
    pairs = list(itertools.combinations(rows, 2))
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs]
    return {
        "least cosine": min(cosines),
        "least inner product": min(float(a @ b) for a, b in pairs),
        "mean cosine": sum(cosines) / len(cosines),
    }


def zico(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    score = 0.0
    halves = [(x[:4], y[:4]), (x[4:], y[4:])]
    found = [jacrev(losses(model, *half))(parameters(model)) for half in halves]
    for name in found[0]:
        if name.endswith("weight") and found[0][name].dim() > 2:
            a, b = (one[name].mean(0).numpy().ravel() for one in found)
            spread, mean = abs(a - b) / 2, (abs(a) + abs(b)) / 2
            score += math.log(sum(m / s for m, s in zip(mean, spread, strict=True) if s > 0))
    return {"score": score}


def synflow(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    own = {name: p.abs() for name, p in parameters(model).items()}
    ones, total = torch.ones_like(x[:1]), 0.0
    for name, weight in own.items():
        if weight.dim() < 2:
            continue
        for place in range(weight.numel()):
            ends = []
            for step in (1e-6, -1e-6):
                moved = weight.clone().flatten()
                moved[place] += step
                trial = own | {name: moved.view_as(weight)}
                ends.append(float(functional_call(model, trial, (ones,)).sum()))
            slope = (ends[0] - ends[1]) / 2e-6
            total += abs(slope * float(weight.flatten()[place]))
    return {"log10 score": math.log10(total)}


def naswot(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    first = model[0]  # type: ignore[index]
    codes = (x.numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy()) > 0
    kernel = [[sum(int(a == b) for a, b in zip(r, s, strict=True)) for s in codes] for r in codes]
    sign, value = np.linalg.slogdet(np.array(kernel, dtype=float))
    return {"score": float(value) if sign else -math.inf}


def curvature(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    model = untracked(model)
    shapes = parameters(model)
    start = flat({name: p[None] for name, p in shapes.items()}, 1)[0]

    def outputs(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in shapes.values()])
        named = {n: v.view_as(p) for (n, p), v in zip(shapes.items(), parts, strict=True)}
        return functional_call(model, named, (x,))

    def loss(vector: Tensor) -> Tensor:
        return F.cross_entropy(outputs(vector), y)

    g = jacrev(loss)(start)
    # Central differences of the gradient: torch.func differentiates batch norms twice wrongly.
    step = 1e-5
    bent = (jacrev(loss)(start + step * g) - jacrev(loss)(start - step * g)) / (2 * step)
    jacobian = jacrev(outputs)(start).flatten(0, 1)
    z = outputs(start)
    shares = z.softmax(1)
    inner = torch.block_diag(*(torch.diag(p) - torch.outer(p, p) for p in shares)) / len(x)
    gauss = jacobian.T @ inner @ jacobian
    rest = bent - gauss @ g
    a, b = float(g @ gauss @ g / (g @ g)), float(g @ rest / (g @ g))
    return {
        "share of H": abs(b) / (abs(a) + abs(b)),
        "G along g": a,
        "H along g": b,
        "cosine of g and H g": float(g @ rest / g.norm() / rest.norm()),
    }


def virtual_depth(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    stream = model[0](x).detach()  # type: ignore[index]
    lambdas: list[float] = []
    for block in (model[1], model[2]):  # type: ignore[index]
        branch = block.branch(stream).detach()
        lambdas.append(float((branch**2).sum() / (stream**2).sum()))
        stream = stream + branch
    energy = {
        chosen: math.prod(v for v, c in zip(lambdas, chosen, strict=True) if c)
        for chosen in itertools.product((0, 1), repeat=2)
    }
    total = sum(energy.values())
    mean = sum(e * sum(c) for c, e in energy.items()) / total
    square = sum(e * (sum(c) - mean) ** 2 for c, e in energy.items()) / total
    return {"mean": mean, "standard deviation": math.sqrt(square), "blocks": 2.0}


def tangent(model: nn.Module, own: dict[str, Tensor], x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(3, generator=generator, dtype=torch.float64)
    rows = flat(jacrev(lambda p: functional_call(model, p, (x,)) @ (v / v.norm()))(own), 1)
    return rows @ rows.T


def drift(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    found = []
    for scale in (1.0, 4.0):
        own, probes = parameters(model), x[:4]
        start, first = tangent(model, own, probes), functional_call(model, own, (x,))

        def loss(p: dict[str, Tensor], a: float = scale, z: Tensor = first) -> Tensor:
            return F.cross_entropy(z + a * (functional_call(model, p, (x,)) - z), y)

        for _ in range(4):
            g = jacrev(loss)(own)
            square = sum(float((t**2).sum()) for t in g.values())
            own = {n: p - 0.1 * float(loss(own)) / square * g[n] for n, p in own.items()}
        found.append(float((tangent(model, own, probes) - start).norm() / start.norm()))
    power = math.log(found[1] / found[0], 4)
    return {
        "drift": found[0],
        "drift at scale 4": found[1],
        "power": power,
        "scale of drift 0.1": (0.1 / found[0]) ** (1 / power) if power < 0 else math.nan,
    }


def hyper_kernel(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    own = parameters(model)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(x), 6, generator=generator, dtype=torch.float64)

    def sides(p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        left = x @ p["a.weight"].T + p["a.bias"]
        other = torch.tanh(left) if model.tied else x @ p["g.weight"].T + p["g.bias"]
        return left, other

    left, other = sides(own)
    kernels = [
        float((flat({n: t[None] for n, t in jacrev(f)(own).items()}, 1) ** 2).sum())
        for f in (
            lambda p: (v * sides(p)[0] * sides(p)[1]).sum(),
            lambda p: (v * sides(p)[0] * other).sum(),
            lambda p: (v * left * sides(p)[1]).sum(),
        )
    ]
    signs = torch.randint(
        2, (3,), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def read(p: dict[str, Tensor]) -> Tensor:
        return functional_call(model, p, (x,)) @ (2 * signs - 1)

    g = jacrev(lambda p: read(p).mean())(own)
    step = float(read(own).std()) / sum(float((t**2).sum()) for t in g.values())

    def line(t: Tensor) -> Tensor:
        return read({n: p + t * step * g[n] for n, p in own.items()}).mean()

    terms, function = [], line
    for order in range(1, 5):
        function = derivative(function)
        value = float(function(torch.zeros((), dtype=torch.float64)))
        terms.append(abs(value) / math.factorial(order) / float(read(own).std()))
    alive = [r for r, term in enumerate(terms, 1) if term >= 0.01 * terms[0]]
    return {
        "cross share": abs(kernels[0] - kernels[1] - kernels[2]) / kernels[0],
        "lesser kernel's share": min(kernels[1:]) / kernels[0],
        "surviving order": float(max(alive)),
    } | ({} if model.tied else {f"term {r}": term for r, term in enumerate(terms, 1)})


def derivative(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda t: jvp(function, (t,), (torch.ones_like(t),))[1]


def local_maps(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    """Singular values of Jacobians of each layer with what follows it, by numpy."""
    spectra, blocks, value = [], [], x[:1]
    modules = list(model)  # type: ignore[call-overload]
    for index, module in enumerate(modules):
        if hasattr(module, "branch"):
            inner = value
            jacobian = jacrev(lambda v, m=module: m.branch(v.clone())[0])(inner)[:, 0].detach().numpy()
            unit = np.eye(len(jacobian))
            blocks.append([np.linalg.cond(jacobian), np.linalg.cond(unit + jacobian)])
            for pair in (module.branch[:2], module.branch[2:]):
                spectra.append(spectrum(pair, inner))
                inner = pair(inner)
        elif isinstance(module, nn.Linear):
            follows = modules[index + 1 : index + 2]
            act = [m for m in follows if isinstance(m, nn.ReLU | nn.Tanh)]
            spectra.append(spectrum(nn.Sequential(module, *act), value))
        value = module(value)
    logs = np.array(
        [[np.log10(f(s)) for f in (lambda s: s[0] / s[-1], np.min, lower_median, np.max)]
         for s in spectra]
    ).mean(0)
    names = ("log10 condition", "log10 smallest", "log10 median", "log10 largest")
    found = dict(zip(names, map(float, logs), strict=True))
    if blocks:
        pairs = np.minimum(np.log10(np.array(blocks)), -math.log10(local_map.ZERO)).mean(0)
        found["block, without skip"], found["block, with skip"] = map(float, pairs)
    return found


def lower_median(values: Array) -> float:
    return float(np.sort(values)[(len(values) - 1) // 2])


def spectrum(layer: nn.Module, value: Tensor) -> Array:
    jacobian = jacrev(lambda v: layer(v)[0])(value)[:, 0].detach().numpy()
    active = jacobian[np.abs(jacobian).max(1) > 0]
    values = np.linalg.svd(active, compute_uv=False)
    return np.asarray(values[values > 1e-7 * values[0]])


def variance_constancy(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    layers, value = [], x
    for module in model:  # type: ignore[attr-defined]
        value = module(value)
        if isinstance(module, nn.Linear):
            layers.append(value.detach().numpy())
    terms = []
    for values in layers[:-1]:
        first, last = (part.var(0, ddof=1) for part in (values[:4], values[-4:]))
        terms.append(((1 - first / (last + 1)) ** 2).mean())
    return {"mean": float(np.mean(terms))}


def multiverse(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    heads = [model.one.weight.detach().numpy(), model.two.weight.detach().numpy()]
    products = [float(a @ b) for a, b in zip(*heads, strict=True)]
    norms = [np.linalg.norm(a) * np.linalg.norm(b) for a, b in zip(*heads, strict=True)]
    cosines = [abs(p) / n for p, n in zip(products, norms, strict=True)]
    return {
        "mean |cosine|": float(np.mean(cosines)),
        "largest |cosine|": float(np.max(cosines)),
        "loss term": float(np.abs(products).sum()),
    }


def capacity(model: nn.Module, x: Tensor, y: Tensor) -> Figures:
    sizes = [5, 7, 6, 3]
    bits = sum(min(sizes[: k + 1]) * sizes[k] * sizes[k + 1] for k in range(3))
    return {"bits": float(bits), "bits per parameter": bits / sum(
        (a + 1) * b for a, b in itertools.pairwise(sizes)
    )}


assert kernel_drift.STEPS == 4 and kernel_drift.SHARE == 0.1
