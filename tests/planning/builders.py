"""Synthetic analyses: chains, bottleneck networks and random small width graphs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from cerewrite.ir import (
    Analysis,
    Estimate,
    LayerEstimate,
    Measures,
    PerChannel,
    Plan,
    Region,
    RegionEstimate,
    RegionLayer,
    Rejection,
    Site,
)
from cerewrite.planning import make_plan
from cerewrite.planning.budgets import region_cost
from cerewrite.planning.measures import region_measures
from tests.planning.measures.composing import compose


def chain_sites(
    names: Sequence[str], share: float = 1.0, rho: float = 1.0, offset: float = 0.0
) -> tuple[Site, ...]:
    """ReLU sites of a chain whose parameters make ``share`` of the kernel."""
    count = len(names)
    sites = []
    for index, name in enumerate(names):
        up = share * (count - index) / (count + 1) + offset
        sites.append(Site(name, index, up, share - up, 5.0, 5.0, 1.0, rho))
    return tuple(sites)


def chain_region(
    name: str,
    widths: Sequence[int],
    inputs: int,
    outputs: int,
    *,
    kernels: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    op: str = "linear",
    bias: bool = True,
    norm: int = 0,
    divisor: int = 1,
    share: float = 1.0,
    rho: float = 1.0,
    multiplicity: int = 1,
    offset: float = 0.0,
) -> Region:
    """A run of hidden layers ``inputs -> widths -> outputs``."""
    count = len(widths)
    kernels = kernels or [1] * (count + 1)
    positions = positions or [1] * (count + 1)
    names = [f"{name}.l{index}" for index in range(count + 1)]
    channels = [inputs, *widths, outputs]
    layers = tuple(
        RegionLayer(
            names[i],
            op,
            "entry" if i == 0 else "exit" if i == count else "interior",
            (i - 1,) if i else (),
            i if i < count else -1,
            channels[i],
            channels[i + 1],
            kernels[i],
            positions[i],
            bias,
        )
        for i in range(count + 1)
    )
    modules = (
        tuple(
            PerChannel(f"{name}.n{i}", "batch_norm", (names[i],), norm, 0, divisor)
            for i in range(count)
        )
        if norm or divisor > 1
        else ()
    )
    return Region(
        name,
        "block",
        tuple(names[:count]),
        tuple(widths),
        multiplicity,
        layers,
        modules,
        chain_sites(names[:count], share, rho, offset),
    )


def analysis_of(
    regions: Sequence[Region],
    *,
    extra_params: int = 0,
    extra_flops: int = 0,
    extra_kappas: Sequence[float] = (),
    rejections: tuple[Rejection, ...] = (),
    model: str = "Net",
) -> Analysis:
    """An analysis of a model that consists of the regions and some fixed layers."""
    measured = [region_measures(region, region.design) for region in regions]
    total = [compose([item.nu for item in measured] + list(extra_kappas))]
    total.append(sum(item.log_variance for item in measured) + sum(map(math.log1p, extra_kappas)))
    total.append(sum(item.leading_order for item in measured) + sum(extra_kappas))
    total.append(sum(item.sign_variance for item in measured) + sum(map(math.log1p, extra_kappas)))
    layers = [
        LayerEstimate(
            site.layer,
            region.sizes[site.width],
            site.coefficient / region.sizes[site.width],
            None,
            site.forward_share,
            site.backward_share,
            0.0,
            site.v_aa,
            site.v_bb,
            site.v_ab,
            site.rho,
            region.name,
            0,
            0,
            "export",
        )
        for region in regions
        for site in region.sites
    ]
    layers += [
        LayerEstimate(
            f"extra{i}", 10, kappa, None, 0.5, 0.5, 0.0, 5.0, 5.0, 1.0, 1.0, None, 0, 0, "export"
        )
        for i, kappa in enumerate(extra_kappas)
    ]
    return Analysis(
        model=model,
        fingerprint="0" * 16,
        estimator="analytic",
        parametrization="ntk",
        gain="he",
        scope="block",
        measures=Measures(
            *(Estimate(value, None, 0, "analytic", "docs/theory.md 4") for value in total)
        ),
        layers=tuple(layers),
        regions=tuple(
            RegionEstimate(region.name, measures, region)
            for region, measures in zip(regions, measured, strict=True)
        ),
        rejections=rejections,
        params=extra_params + sum(region_cost("params", y, y.design) for y in regions),
        flops=extra_flops + sum(region_cost("flops", y, y.design) for y in regions),
        frontend="export",
        assumptions=(),
    )


def resnet(blocks: Sequence[int] = (3, 4, 6, 3)) -> Analysis:
    """Bottleneck stages of a ResNet on 224 px: (3, 4, 6, 3) is ResNet-50."""
    regions = []
    stream, total = 64, sum(blocks)
    for stage, count in enumerate(blocks):
        width, side = 64 << stage, 56 >> stage
        for block in range(count):
            before = side * (2 if stage and block == 0 else 1)
            share = 0.9 / (len(regions) + 2)
            regions.append(
                chain_region(
                    f"layer{stage + 1}.{block}",
                    (width, width),
                    stream,
                    4 * width,
                    kernels=(1, 9, 1),
                    positions=(before**2, side**2, side**2),
                    op="conv",
                    bias=False,
                    norm=2,
                    share=share,
                    rho=0.4,
                    offset=0.3 * share * (1.0 - len(regions) / total),
                )
            )
            stream = 4 * width
    return analysis_of(
        regions,
        extra_params=4_900_000,
        extra_flops=1_500_000_000,
        extra_kappas=(0.002, 0.001, 0.001),
        model="ResNet",
    )


def vgg16() -> Analysis:
    """VGG-16 on 224 px as one region of 15 classes."""
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 4096, 4096)
    sides = (224, 224, 112, 112, 56, 56, 56, 28, 28, 28, 14, 14, 14, 1, 1, 1)
    kernels = (9,) * 13 + (49, 1, 1)
    region = chain_region(
        "vgg",
        widths,
        3,
        1000,
        kernels=kernels,
        positions=tuple(side**2 for side in sides),
        op="conv",
        rho=0.5,
    )
    return analysis_of([region], model="VGG")


def mlp(widths: Sequence[int], inputs: int = 64, outputs: int = 10) -> Analysis:
    """A plain ReLU network whose hidden layers are one region."""
    return analysis_of([chain_region("mlp", widths, inputs, outputs)], model="MLP")


def random_analysis(seed: int, regions: int | None = None, size: int = 4) -> Analysis:
    """A small random width graph: 1 to 3 regions of 1 to 3 classes."""
    draw = random.Random(seed)
    made = []
    for index in range(regions or draw.randint(1, 3)):
        widths = [draw.randint(2, size) for _ in range(draw.randint(1, 3 if size <= 4 else 2))]
        made.append(
            chain_region(
                f"r{index}",
                widths,
                draw.randint(1, 6),
                draw.randint(1, 6),
                kernels=[draw.choice((1, 1, 4, 9)) for _ in range(len(widths) + 1)],
                positions=[draw.choice((1, 4)) for _ in range(len(widths) + 1)],
                bias=draw.random() < 0.5,
                norm=draw.choice((0, 2)),
                share=draw.uniform(0.1, 1.0),
                rho=draw.uniform(0.2, 1.0),
            )
        )
    return analysis_of(
        made,
        extra_params=draw.randint(0, 50),
        extra_flops=draw.randint(0, 50),
        extra_kappas=(draw.uniform(0, 0.1),),
    )


def plan_freely(analysis: Analysis, **options: Any) -> Plan:
    """`make_plan` with nothing but the budgets in its way unless it is told otherwise."""
    free = {"min_width": 1, "allow": "all", "widths": "free", "min_gain": 0.0}
    return make_plan(analysis, **{**free, **options})


def remaining_kappas(analysis: Analysis) -> tuple[float, ...]:
    """The corrections of the layers that are no site of a region or of existing members.

    They are in execution order. A measured correction may come out below zero by its error; it
    counts as zero.
    """
    regions = (*(estimate.region for estimate in analysis.regions), *analysis.members)
    owned = {site.layer for region in regions for site in region.sites}
    return tuple(max(layer.kappa, 0.0) for layer in analysis.layers if layer.name not in owned)
