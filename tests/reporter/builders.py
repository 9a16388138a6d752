"""Analyses, plans and reports made by hand: small, and deep enough to be collapsed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from cerewrite import ir
from cerewrite.ir.raced import Entrant, Race, Reading

REFERENCE = "docs/theory.md 4"


def layer(
    name: str, width: int, kappa: float, share: float, region: str | None, note: str = ""
) -> ir.LayerEstimate:
    return ir.LayerEstimate(
        name=name,
        width=width,
        kappa=kappa,
        kappa_stderr=None,
        forward_share=0.75,
        backward_share=0.25,
        share=share,
        v_aa=5.0,
        v_bb=1.0,
        v_ab=1.0,
        rho=1.0,
        region=region,
        params=width * width,
        flops=2 * width * width,
        frontend="export",
        note=note,
    )


def chain_region(name: str, size: int, classes: int) -> ir.Region:
    """A run of hidden linears of one size between an entry and an exit."""
    names = tuple(f"{name}.{index}" for index in range(classes))
    roles: list[tuple[ir.Role, tuple[int, ...], int]] = [("entry", (), 0)]
    roles += [("interior", (index,), index + 1) for index in range(classes - 1)]
    roles.append(("exit", (classes - 1,), -1))
    layers = tuple(
        ir.RegionLayer(f"{name}.{index}", "linear", role, sources, target, size, size, 1, 1, True)
        for index, (role, sources, target) in enumerate(roles)
    )
    return ir.Region(name, "block", names, (size,) * classes, 1, layers, ())


def analysis(depth: int = 5, *, sampled: bool = False) -> ir.Analysis:
    """A network of ``depth`` layers; its nu closed form, or with errors where ``sampled``."""
    weights = [1 + (7 * index) % 5 for index in range(depth - 1)] + [0]
    total = sum(weights)
    layers = tuple(
        layer(
            f"net.{2 * index}" if depth < 20 else f"layer{1 + index // 8}.{index % 8}.conv2",
            512,
            0.02 * weight / total,
            weight / total,
            "net" if index < depth - 1 else None,
            "" if weight else "read-out: its weights are averaged over, not drawn",
        )
        for index, weight in enumerate(weights)
    )
    nu = ir.Estimate(0.0202, None, 0, "analytic", REFERENCE)
    if sampled:
        nu = ir.Estimate(0.0202, 0.0011, 4000, "monte-carlo", "docs/theory.md 7")
        layers = tuple(_with_error(item) for item in layers)
    region = chain_region("net", 512, 4)
    return ir.Analysis(
        model="WideNet",
        fingerprint="9f2c1a",
        estimator=nu.method,
        parametrization="ntk",
        gain="as-built",
        scope="block",
        measures=ir.Measures(
            nu,
            dataclasses.replace(nu, value=0.02),
            dataclasses.replace(nu, value=0.0199),
            dataclasses.replace(nu, value=0.02),
        ),
        layers=layers,
        regions=(ir.RegionEstimate("net", ir.Measures(0.0202, 0.02, 0.0199, 0.02), region),),
        rejections=rejections(),
        params=826_378,
        flops=1_651_712,
        frontend="export",
        assumptions=(
            "Weights are Gaussian with the gain that the layers were built with.",
            "Inputs are white: spatial correlation would raise the share of convolutions.",
        ),
    )


def _with_error(item: ir.LayerEstimate) -> ir.LayerEstimate:
    values = {name: getattr(item, name) for name in item.__slots__}
    return ir.LayerEstimate(**{**values, "kappa_stderr": 0.1 * item.kappa + 1e-5})


def rejections() -> tuple[ir.Rejection, ...]:
    """Sixteen of one kind, five alike, one alone with characters that markup would eat."""
    alone = ir.Rejection(
        "head[0]",
        "tied-weight",
        "its weight is also 'embed.weight' [bold]<shared>[/bold]",
        "untie the two",
    )
    many = tuple(
        ir.Rejection(
            f"layer{index // 4}.{index % 4}.down",
            "one-hidden-layer",
            "a chain with one hidden layer gains nothing",
            "widen the scope with --scope stage",
        )
        for index in range(16)
    )
    alike = tuple(
        ir.Rejection(f"attn.{i}", "not-called", f"attn.{i}.weight is read, never called", "none")
        for i in range(5)
    )
    return (alone, *many, *alike)


def plan(*, objective: str = "primal", split: bool = True) -> ir.Plan:
    region = chain_region("net", 512, 4)
    two = chain_region("net", 512, 2)
    other = dataclasses.replace(two, name="tail", classes=("a", "b"), sizes=(64, 256))
    splits = (
        ir.Split(
            "net",
            ir.Design(9, (168,) * 4),
            826_002,
            1_650_960,
            ir.Measures(0.0101, 0.01, 0.0099, 0.01),
        ),
        ir.Split(
            "tail",
            ir.Design(3, (20, 91)),
            12_345,
            24_690,
            ir.Measures(0.31, 0.28, 0.0031, 0.28),
            note="by hand",
        ),
    )
    primal = objective == "primal"
    baseline = ir.Figures(826_378, 1_651_712, ir.Measures(0.0202, 0.02, 0.0199, 0.02))
    planned = ir.Figures(826_002, 1_650_960, ir.Measures(0.0101, 0.01, 0.0099, 0.01))
    if not primal:
        planned = ir.Figures(402_111, 803_000, ir.Measures(0.0202, 0.02, 0.0199, 0.02))
    return ir.Plan(
        model="WideNet",
        fingerprint="9f2c1a",
        objective=objective,
        measure="log-variance" if primal else "nu",
        budgets=(ir.Budget("params", 826_378, "params"),) if primal else (),
        scope="block",
        splits=splits if split else (),
        baseline=baseline,
        planned=planned if split else baseline,
        feasible=(("params", 20_512, 826_378),),
        considered=12_345,
        gap=0.0 if primal else 0.0123,
        regions=(region, other),
        rejections=rejections()[:3],
        seed=0,
    )


def verification(*, passed: bool = True) -> ir.Verification:
    return ir.Verification(
        (
            ir.Check("signature", True, "output [2, 10], as before"),
            ir.Check("membership", passed, "9 members added up, in float64", 3.1e-15, 1e-10),
            ir.Check("gradients", True, "18 of 18 parameters get one", 18, 18),
        )
    )


def export(*, passed: bool = True) -> ir.Export:
    twin = "a copy with random weights: head.weight near zero"
    return ir.Export(
        path="build/model.onnx",
        opset=20,
        nodes=31,
        size=3_312_526,
        parity=(
            ir.Parity(1, 2.9e-7, 1e-5),
            ir.Parity(2, 2.2e-7 if passed else 3e-2, 1e-5),
            ir.Parity(7, 3.9e-7, 1e-5, twin),
        ),
        inputs=(("images", ("batch", 64)),),
        outputs=(("output", ("batch", 10)),),
    )


def report(*, passed: bool = True, depth: int = 5) -> ir.Report:
    return ir.Report(
        analysis=analysis(depth),
        plan=plan(),
        verification=verification(passed=passed),
        export=export(passed=passed),
        renamed=(("net.2.weight", "net.2.members"), ("net.4.bias", "net.4.bias")),
        seconds=(("trace", 0.61), ("analyse", 0.02), ("plan", 0.3), ("export", 2.4)),
        versions=(("cerewrite", "0.1"), ("torch", "2.13")),
    )


def slower_report() -> ir.Report:
    timings = (
        ir.Timing("eager", 1, 2, 0.00123, 0.00004, 0.00251, 0.00005, 15),
        ir.Timing("onnxruntime", 16, 2, 0.0102, 0.0009, 0.0108, 0.0008, 15),
        ir.Timing("compile", 1, 2, refused="torch.compile fails: no compiler"),
    )
    aligned = tuple(
        dataclasses.replace(timing, rewritten=0.9 * timing.original) for timing in timings
    )
    other = ir.Alternative(
        "widths in multiples of 16, FLOPs held",
        ir.Figures(825_000, 1_640_000, ir.Measures(0.0123, 0.0122, 0.012, 0.0122)),
        aligned,
    )
    return dataclasses.replace(report(), timings=timings, alternative=other)


def race(names: Sequence[str], losses: Sequence[float], *, seconds: float) -> Race:
    """Finalists that all had these losses, one a step of so many seconds, and then diverged."""
    curve = tuple(
        Reading(step, seconds * step, loss, loss) for step, loss in enumerate((*losses, math.inf))
    )
    entrants = [Entrant(name, "", 9, seconds, 0.1, False, 2, 0, "", None, None, curve)
                for name in names]  # fmt: skip
    return Race("Net", "Adam", "steps", True, 8, 9.0, 1.0, 4, tuple(entrants), names[0], "a draw")
