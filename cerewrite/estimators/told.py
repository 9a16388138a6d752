"""What `auto` says where draws are few, dead or refused."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils import _pytree as pytree

from cerewrite.errors import AnalysisError, ZeroKernelError
from cerewrite.estimators.base import (
    Assumption,
)
from cerewrite.estimators.draws import (
    Subject,
)
from cerewrite.estimators.limited import (
    SECONDS,
    Count,
)
from cerewrite.estimators.monte_carlo import FEWEST


def too_slow(count: Count, assumption: Assumption) -> AnalysisError:
    """Why a time limit gives too few draws."""
    limit = SECONDS if assumption.seconds is None else assumption.seconds
    return AnalysisError(
        f"{FEWEST} draws do not fit the time limit of {limit:g} s",
        advice=f"allow more: --seconds {2 * FEWEST * count.each:.2g}",
    )


def dead(subject: Subject, kernels: Sequence[float]) -> ZeroKernelError:
    """Why draws in which K is zero measure nothing."""
    count = sum(not kernel > 0 for kernel in kernels)
    why = "the inputs do not vary" if constant(subject) else "no gradient arrives"
    return ZeroKernelError(
        f"the tangent kernel is zero in {count} of {len(kernels)} draws: {why}",
        advice=f"give real inputs; {ZeroKernelError.ADVICE}",
    )


def told(refusal: AnalysisError | None) -> tuple[str, ...]:
    """The notice of a model without a closed form."""
    return (f"no closed form, measured alone: {refusal.message}",) if refusal is not None else ()


def constant(subject: Subject) -> bool:
    """Whether every value of every floating input is the same."""
    leaves = pytree.tree_leaves((subject.args, subject.kwargs))
    floats = [x for x in leaves if isinstance(x, torch.Tensor) and x.is_floating_point()]
    return bool(floats) and all(bool((x == x.flatten()[0]).all()) for x in floats if x.numel() > 1)


def variation(subject: Subject) -> tuple[str, ...]:
    """The warning of inputs that are all alike."""
    if not constant(subject):
        return ()
    return (
        "WARNING: the inputs do not vary: positions and examples are alike, which those of real "
        "data are not; give real inputs",
    )
