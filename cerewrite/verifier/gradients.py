"""One backward pass reaches every parameter of the rewritten model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cerewrite.ir import Check, Plan
from cerewrite.ir.inputs import Inputs
from cerewrite.runtime.alone import short_of_memory
from cerewrite.verifier.perturb import ATTEMPTS, perturb, resample_signs
from cerewrite.verifier.running import (
    as_sentence,
    fresh_copy,
    on_meta,
    send_back,
)
from cerewrite.verifier.shapes import smaller

_NEGLIGIBLE = 1e-4
"""Share of the largest gradient below which one is rounding (a bias before a batch norm)."""


def check_gradients(
    original: nn.Module, rewritten: nn.Module, plan: Plan, inputs: Inputs
) -> list[Check]:
    """Every parameter gets a finite gradient that is not all zero, where the original's did.

    The scalar is a random projection of all floating-point outputs, in training mode (in
    evaluation mode if the original refuses the inputs in training mode), on copies without
    zero-initialised scales and layers, behind which no gradient passes
    (`cerewrite.verifier.perturb`). A ReLU may be dead on a few example inputs: a parameter that
    gets nothing is tried again with other signs of the weights. Parameters that the original
    never uses, or whose gradient is negligible there too, are counted and not held against the
    rewritten model.
    """
    del plan
    mode = "train"
    inputs = smaller(inputs, original, rewritten, training=True)
    try:
        before = _gradients(original, inputs, training=True)
    except Exception as error:
        if short_of_memory(error):
            raise
        mode = "eval"
        try:
            before = _gradients(original, inputs, training=False)
        except Exception as error:
            if short_of_memory(error):
                raise
            detail = f"not run: the original has no gradient, {as_sentence(error)}"
            return [Check("gradients", True, detail)]
    floor = _NEGLIGIBLE * max((old.largest for old in before.values() if old), default=0.0)
    faults: dict[str, str] | None = None
    for attempt in range(ATTEMPTS):
        after = _gradients(rewritten, inputs, training=mode == "train", attempt=attempt)
        found = {name: why for name in after if (why := _fault(name, before, after, floor))}
        faults = {n: w for n, w in found.items() if faults is None or n in faults}
        if not faults:
            break
    wrong = [f"'{name}' {why}" for name, why in (faults or {}).items()]
    idle = sum(gradient is None for gradient in after.values())
    still = sum(gradient is not None and gradient.zero for gradient in after.values())
    detail = f"{len(after)} parameters in {mode} mode"
    if idle or still:
        detail += f"; {idle} unused and {still} with a zero gradient, as in the original"
    if wrong:
        detail = f"{len(wrong)} of {len(after)} parameters: {', '.join(wrong[:5])}"
    return [Check("gradients", not wrong, detail, len(wrong), 0)]


@dataclass(frozen=True, slots=True)
class _Gradient:
    """What is remembered of a gradient, which itself is let go at once.

    Attributes:
        largest: largest absolute value; 0 where it is not finite, or has no values.
        finite: whether all of it is.
        zero: whether all of it is zero.
    """

    largest: float
    finite: bool
    zero: bool

    @classmethod
    def of(cls, gradient: Tensor) -> _Gradient:
        """Look at a gradient."""
        if gradient.is_sparse:
            gradient = gradient.coalesce().values()
        if gradient.is_complex():
            gradient = torch.view_as_real(gradient)
        if gradient.is_meta or not gradient.numel():
            return cls(0.0, True, not gradient.is_meta)
        low, high = (float(end) for end in torch.aminmax(gradient.detach()))
        finite = math.isfinite(low) and math.isfinite(high)
        return cls(max(-low, high) if finite else 0.0, finite, low == high == 0)


def _gradients(
    model: nn.Module, inputs: Inputs, *, training: bool, attempt: int = 0
) -> dict[str, _Gradient | None]:
    """Gradient of every parameter that asks for one, by name; attempts above 0 have other signs.

    One gradient at a time is held: a copy of the model and its activations are all the memory.
    """
    model = fresh_copy(model, training=training)
    if not on_meta(model):
        perturb(model)
        inputs = resample_signs(model, inputs, attempt)
    found: dict[str, _Gradient | None] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[name] = None
            look = partial(_look, found, name)
            parameter.register_post_accumulate_grad_hook(look)  # type: ignore[no-untyped-call]
    send_back(model, inputs)
    return found


def _look(found: dict[str, _Gradient | None], name: str, parameter: Tensor) -> None:
    """Note a gradient, and free it."""
    if parameter.grad is not None:
        found[name] = _Gradient.of(parameter.grad)
        parameter.grad = None


def _fault(
    name: str,
    before: dict[str, _Gradient | None],
    after: dict[str, _Gradient | None],
    floor: float,
) -> str | None:
    """What is wrong with one parameter's gradient, if anything."""
    old, new = before.get(name), after[name]
    if new is None:
        return "gets no gradient" if name not in before or old is not None else None
    if not new.finite:
        return None if old is not None and not old.finite else "gets a gradient that is not finite"
    if new.zero and (name not in before or (old is not None and old.largest > floor)):
        return "gets a zero gradient"
    return None
