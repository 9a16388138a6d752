"""Parameters and FLOPs counted on the built model, against the plan and its budgets."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from cerewrite.ir import Check, Plan
from cerewrite.ir.inputs import Inputs
from cerewrite.nn import BlockDiagonalLinear
from cerewrite.ops.surgery.conv_transpose import KINDS
from cerewrite.runtime.trees import examples
from cerewrite.verifier.shapes import run_for_shapes

_LAYERS = (nn.Linear, BlockDiagonalLinear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *KINDS)


def check_budget(
    original: nn.Module, rewritten: nn.Module, plan: Plan, inputs: Inputs
) -> list[Check]:
    """The built model has the plan's parameters and FLOPs, and keeps within every budget.

    FLOPs are counted from the shapes that pass through linear and convolution modules, two per
    multiply-add. FLOPs that the original spends outside such modules (a functional call, an
    attention's fused projection) are the same before and after; they are taken from the plan's
    baseline, and the detail says how many.
    """
    params = count_params(rewritten)
    before, after = count_flops(original, inputs), count_flops(rewritten, inputs)
    outside = plan.baseline.flops - before
    flops = after + outside
    note = f", {outside:,} of them outside linear and conv modules" if outside else ""
    counted = {"params": params, "flops": flops}
    checks = [
        _equal("params", params, plan.planned.params, ""),
        _equal("flops", flops, plan.planned.flops, note),
    ]
    for budget in plan.budgets:
        if budget.cost in counted:
            value = counted[budget.cost]
            detail = f"{value:,} {budget.cost} of at most {budget.limit:,.0f}"
            passed = value <= budget.limit
            checks.append(Check(f"budget {budget.text}", passed, detail, value, budget.limit))
    return checks


def count_params(model: nn.Module) -> int:
    """Parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(model: nn.Module, inputs: Inputs) -> int:
    """FLOPs per example of the linear and convolution modules that the model calls.

    Args:
        model: the model; a copy of it is run.
        inputs: example inputs, as many as `cerewrite.runtime.trees.examples` says.

    Example:
        >>> import torch
        >>> count_flops(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        ...             (torch.zeros(3, 4),))
        96
    """
    total = rows = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total, rows
        rows = rows or output.shape[0]
        read = inputs[0] if isinstance(module, KINDS) else output
        total += 2 * read.numel() * _fan_in(module)

    def hook(copy: nn.Module) -> None:
        nonlocal total, rows
        total = rows = 0
        for module in copy.modules():
            if isinstance(module, _LAYERS):
                module.register_forward_hook(count)

    run_for_shapes(model, inputs, training=False, prepare=hook)
    return total // examples(inputs, rows)


def _fan_in(module: nn.Module) -> int:
    """Multiply-adds per output element; per input element of a transposed convolution."""
    if isinstance(module, BlockDiagonalLinear):
        return module.weight.shape[1]
    return prod(module.get_parameter("weight").shape[1:])


def _equal(name: str, counted: int, planned: int, note: str) -> Check:
    detail = f"{counted:,} {name} counted, {planned:,} planned{note}"
    return Check(name, counted == planned, detail, counted, planned)
