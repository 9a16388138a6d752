"""One backward pass reaches every parameter of the rewritten model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cerewrite.ir import Check, Plan
from cerewrite.ir.inputs import Inputs
from cerewrite.runtime.trees import tensors
from cerewrite.verifier.perturb import ATTEMPTS, perturb, resample_signs
from cerewrite.verifier.running import (
    as_sentence,
    call,
    fresh_copy,
    on_meta,
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
    except Exception:
        mode = "eval"
        try:
            before = _gradients(original, inputs, training=False)
        except Exception as error:
            detail = f"not run: the original has no gradient, {as_sentence(error)}"
            return [Check("gradients", True, detail)]
    floor = _NEGLIGIBLE * max(map(_largest, before.values()), default=0.0)
    faults: dict[str, str] | None = None
    for attempt in range(ATTEMPTS):
        after = _gradients(rewritten, inputs, training=mode == "train", attempt=attempt)
        found = {name: why for name in after if (why := _fault(name, before, after, floor))}
        faults = {n: w for n, w in found.items() if faults is None or n in faults}
        if not faults:
            break
    wrong = [f"'{name}' {why}" for name, why in (faults or {}).items()]
    idle = sum(gradient is None for gradient in after.values())
    still = sum(gradient is not None and _all_zero(gradient) for gradient in after.values())
    detail = f"{len(after)} parameters in {mode} mode"
    if idle or still:
        detail += f"; {idle} unused and {still} with a zero gradient, as in the original"
    if wrong:
        detail = f"{len(wrong)} of {len(after)} parameters: {', '.join(wrong[:5])}"
    return [Check("gradients", not wrong, detail, len(wrong), 0)]


def _gradients(
    model: nn.Module, inputs: Inputs, *, training: bool, attempt: int = 0
) -> dict[str, Tensor | None]:
    """Gradient of every parameter that asks for one, by name; attempts above 0 have other signs."""
    model = fresh_copy(model, training=training)
    if not on_meta(model):
        perturb(model)
        inputs = resample_signs(model, inputs, attempt)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        outputs = [out for out in tensors(call(model, inputs)) if out.requires_grad]
        directions = [torch.randn(out.shape, generator=generator).to(out) for out in outputs]
        torch.autograd.backward(outputs, directions)
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _fault(
    name: str, before: dict[str, Tensor | None], after: dict[str, Tensor | None], floor: float
) -> str | None:
    """What is wrong with one parameter's gradient, if anything."""
    old, new = before.get(name), after[name]
    if new is None:
        return "gets no gradient" if name not in before or old is not None else None
    if new.is_meta:
        return None
    if not bool(new.isfinite().all()):
        bad_before = old is not None and not bool(old.isfinite().all())
        return None if bad_before else "gets a gradient that is not finite"
    if _all_zero(new) and (name not in before or _largest(old) > floor):
        return "gets a zero gradient"
    return None


def _largest(gradient: Tensor | None) -> float:
    if gradient is None or gradient.is_meta or not bool(gradient.isfinite().all()):
        return 0.0
    return float(gradient.abs().max()) if gradient.numel() else 0.0


def _all_zero(gradient: Tensor) -> bool:
    return not gradient.is_meta and not bool(gradient.any())
