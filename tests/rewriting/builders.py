"""Tiny models with regions and plans written by hand: no tracer, no planner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn

from cerewrite.ir import (
    Budget,
    Design,
    Figures,
    Measures,
    PerChannel,
    Plan,
    Region,
    RegionLayer,
    Split,
)
from cerewrite.ops.linear import Turned
from cerewrite.runtime.fingerprint import fingerprint

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A model, an example input shape, its regions by hand, and how each is split."""

    name: str
    build: Callable[[], nn.Module]
    shape: Shape
    regions: Callable[[nn.Module], tuple[Region, ...]]
    splits: tuple[tuple[int, tuple[int, ...]], ...]

    def model(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return self.build()

    def inputs(self, seed: int = 1) -> tuple[Tensor]:
        return (torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)),)

    def plan(self, model: nn.Module | None = None, seed: int = 0) -> Plan:
        model = self.model() if model is None else model
        return make_plan(model, self.inputs(), self.regions(model), self.splits, seed)


def layer(
    model: nn.Module, name: str, source: int | tuple[int, ...], target: int, inner: int = 1
) -> RegionLayer:
    """A layer's part in a region: -1 for a side outside of it, several sources where it reads
    a concatenation."""
    sources = source if isinstance(source, tuple) else (source,) * (source >= 0)
    module = model.get_submodule(name)
    bias = module.bias is not None
    role = "entry" if not sources else "exit" if target < 0 else "interior"
    if isinstance(module, nn.Linear):
        n_in, n_out = module.in_features // inner, module.out_features
        return RegionLayer(name, "linear", role, sources, target, n_in, n_out, inner, 1, bias)
    if isinstance(module, Turned):
        n_in, n_out = module.weight.shape
        return RegionLayer(name, "linear_turned", role, sources, target, n_in, n_out, 1, 1, bias)
    sizes = (module.in_channels, module.out_channels, prod(module.kernel_size))
    op = "conv_transpose" if module.transposed else "conv"
    return RegionLayer(name, op, role, sources, target, *sizes, 1, bias)


def region(
    model: nn.Module,
    layers: Sequence[RegionLayer],
    modules: Sequence[tuple[str, str, int | tuple[int, ...]]] = (),
    multiplicity: int = 1,
) -> Region:
    """A region named after its first layer; classes are named after their first writers."""
    writers: dict[int, RegionLayer] = {}
    for part in layers:
        if part.target >= 0:
            writers.setdefault(part.target, part)
    classes = [writers[i] for i in range(len(writers))]
    per_channel = []
    for name, op, index in modules:
        count = sum(p.numel() for p in model.get_submodule(name).parameters())
        own = index if isinstance(index, tuple) else (index,)
        size = sum(classes[i].out_channels for i in own)
        flops = 2 * prod(model.get_submodule(name).kernel_size) if op == "depthwise_conv" else 0
        names = tuple(classes[i].name for i in own)
        per_channel.append(PerChannel(name, op, names, count // size, flops))
    return Region(
        name=layers[0].name,
        scope="block",
        classes=tuple(c.name for c in classes),
        sizes=tuple(c.out_channels for c in classes),
        multiplicity=multiplicity,
        layers=tuple(layers),
        modules=tuple(per_channel),
    )


def make_plan(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    regions: Sequence[Region],
    splits: Sequence[tuple[int, tuple[int, ...]]],
    seed: int = 0,
) -> Plan:
    """A plan whose figures follow from docs/theory.md, section 8, not from counting modules."""
    positions = _positions(model, inputs)
    before = Figures(
        sum(p.numel() for p in model.parameters()),
        _model_flops(model, positions),
        Measures(1, 1, 1, 1),
    )
    params, flops = before.params, before.flops
    chosen = []
    for found, (m, widths) in zip(regions, splits, strict=True):
        old = _cost(found, found.multiplicity, found.widths, positions)
        new = _cost(found, m, widths, positions)
        params, flops = params + new[0] - old[0], flops + new[1] - old[1]
        chosen.append(Split(found.name, Design(m, widths), *new, Measures(0.5, 0.5, 0.5, 0.5)))
    return Plan(
        model=type(model).__name__,
        fingerprint=fingerprint(model),
        objective="primal",
        measure="nu",
        budgets=(Budget("params", max(params, before.params), "params"),),
        scope="block",
        splits=tuple(chosen),
        baseline=before,
        planned=Figures(params, flops, Measures(0.5, 0.5, 0.5, 0.5)),
        feasible=(),
        considered=1,
        gap=0.0,
        regions=tuple(regions),
        rejections=(),
        seed=seed,
    )


def with_splits(plan: Plan, *splits: tuple[int, tuple[int, ...]]) -> Plan:
    """The same plan with other members; its figures are not updated."""
    pairs = zip(plan.splits, splits, strict=True)
    return replace(plan, splits=tuple(replace(s, design=Design(m, w)) for s, (m, w) in pairs))


def _cost(
    found: Region, m: int, widths: tuple[int, ...], positions: dict[str, int]
) -> tuple[int, int]:
    params = flops = 0
    for part in found.layers:
        n_in = part.in_channels if part.role == "entry" else part.reads(widths)
        n_out = part.out_channels if part.role == "exit" else widths[part.target]
        weights = m * part.kernel * n_in * n_out // part.groups
        params += weights + part.bias * (n_out if part.role == "exit" else m * n_out)
        flops += 2 * weights * positions[part.name]
    for module in found.modules:
        channels = m * found.width_of(module, widths)
        params += module.params * channels
        flops += module.flops * channels * positions.get(module.name, 0)
    return params, flops


def _positions(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, int]:
    """Output positions per example of every conv and linear."""
    found: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            read = args[0] if getattr(module, "transposed", False) else out
            found[name] = read[0].numel() // module.weight.shape[isinstance(module, Turned)]

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Turned | nn.modules.conv._ConvNd)
    ]
    training = model.training
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.eval()(*inputs)
    model.train(training).load_state_dict(state)
    for handle in hooks:
        handle.remove()
    return found


def _model_flops(model: nn.Module, positions: dict[str, int]) -> int:
    return sum(
        2 * model.get_submodule(name).weight.numel() * count for name, count in positions.items()
    )
