"""Members that can be asked: their mean is the model's output, each is a narrow network's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError
from cerewrite.ir import Check, Plan
from cerewrite.ir.inputs import Inputs
from cerewrite.rewriting.members import members
from cerewrite.rewriting.session import changes_of
from cerewrite.runtime.doubling import double_precision
from cerewrite.runtime.trees import tensors
from cerewrite.verifier.members import member_networks
from cerewrite.verifier.perturb import perturb
from cerewrite.verifier.running import LIMIT, call, doubled, fresh_copy, on_meta, relative_error
from cerewrite.verifier.shapes import smaller


def check_members(
    original: nn.Module, rewritten: nn.Module, plan: Plan, inputs: Inputs
) -> list[Check]:
    """For a plan of one region at scope ``network``: the members' outputs are what they claim.

    In float64 and evaluation mode, on a copy with perturbed norms and biases: the mean of
    `cerewrite.members` is the model's output, and every member's output is that of its own narrow
    network. The figure is the largest absolute error over the largest output. Where members share
    what lies behind their sum the check says so and compares nothing.
    """
    changes = tuple(changes_of(plan))
    if plan.scope != "network" or len(changes) != 1 or changes[0].split.multiplicity < 2:
        return []
    if on_meta(rewritten):
        return [Check("members", True, "not run: parameters are on the meta device")]
    given = doubled(smaller(inputs, original, rewritten, training=False))
    wide = fresh_copy(rewritten, training=False).double()
    perturb(wide)
    try:
        with double_precision():
            asked = members(wide, given, allow_shared=True)
    except RewriteError as error:
        return [Check("members", True, f"cannot be asked: {error.message}")]
    with torch.no_grad(), double_precision():
        outputs = _apart(call(asked, given), asked.behind.apart)
        whole = _apart(call(wide, given), asked.behind.apart)
        worst = max(relative_error(z.mean(0), y) for z, y in zip(outputs, whole, strict=True))
    for index, member in enumerate(member_networks(wide, changes[0])):
        with torch.no_grad(), double_precision():
            alone = _apart(call(member, given), asked.behind.apart)
        pairs = zip(outputs, alone, strict=True)
        worst = max(worst, *(relative_error(z[index], own) for z, own in pairs))
    detail = f"{asked.count} members, their mean and each alone"
    return [Check("members", worst <= LIMIT, detail, worst, LIMIT)]


def _apart(output: object, apart: Sequence[bool]) -> list[Tensor]:
    """The outputs that come from members."""
    return [tensor for tensor, own in zip(tensors(output), apart, strict=True) if own]
