"""Make a copy of a model worth comparing: no setting that hides a mistake."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.ir.inputs import Inputs
from cerewrite.ops import family_of
from cerewrite.ops.modules import perturb_free

ATTEMPTS = 4
"""Draws of signs: a unit may be dead on a few inputs, it is unreached if every draw says so."""


def perturb(model: nn.Module, seed: int = 0) -> None:
    """Move the settings that are constant in a fresh model, in place.

    Fresh models have norms that scale by 1 (or by 0, at the end of a residual branch), zero
    biases, zero-initialised layers, running means of 0: with them, a member that used another
    member's settings, or a lost bias, would not show. Scales are multiplied by 1 +- 0.2 (zeros
    become 1 first), shifts, biases and running means move by 0.1, running variances by a factor
    in [0.5, 1.5], PReLU slopes by 0.1; layers whose weights are all zero get Gaussian ones of
    variance 1 / fan_in, other parameters that are all zero (gates) of variance 1; others that
    are constant (layer scales, which start so small that they would hide the branch) become
    1 +- 0.2. What is left stays.

    Args:
        model: a copy nobody else uses.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    def uniform(like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=generator).to(like)

    with torch.no_grad():
        for module in model.modules():
            if (family := family_of(module)) is not None:
                family.perturb(module, normal, uniform)
                continue
            for parameter in module.parameters(recurse=False):
                perturb_free(parameter, normal)


def resample_signs(model: nn.Module, inputs: Inputs, attempt: int) -> Inputs:
    """Give the weights other signs, in place, so that other ReLUs are dead; returns the inputs.

    Attempt 0 changes nothing; the last makes parameters and inputs positive, so that no ReLU
    is off unless a norm makes it so; those between turn the signs of units drawn at random.

    Args:
        model: a copy nobody else uses.
        inputs: example inputs; they are not changed.
        attempt: which attempt, from 0 to `ATTEMPTS` - 1.
    """
    if attempt == 0:
        return inputs
    positive = attempt == ATTEMPTS - 1
    generator = torch.Generator().manual_seed(attempt)
    with torch.no_grad():
        for parameter in model.parameters():
            if positive:
                parameter.abs_()
            elif parameter.dim():
                signs = torch.randint(0, 2, parameter.shape[:1], generator=generator) * 2 - 1
                shape = (-1, *[1] * (parameter.dim() - 1))
                parameter.mul_(signs.to(parameter).reshape(shape))
    if not positive:
        return inputs

    def absolute(tensor: Tensor) -> Tensor:
        return tensor.abs() if tensor.is_floating_point() else tensor

    found: Inputs = pytree.tree_map_only(Tensor, absolute, inputs)
    return found
