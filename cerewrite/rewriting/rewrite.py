"""Apply a plan to a model, and take it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

from cerewrite.errors import RewriteError, StalePlanError
from cerewrite.frontend.unwrapping import refuse_wrapped, unwrap
from cerewrite.ir import Plan
from cerewrite.rewriting.engine import Pass, PassResult, default_passes, run
from cerewrite.rewriting.record import attach, get_record, is_rewritten, restore
from cerewrite.rewriting.session import Session, renames
from cerewrite.runtime.copies import deep_copy
from cerewrite.runtime.fingerprint import class_name, fingerprint
from cerewrite.runtime.untie import untie


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A rewritten model and what was done to it.

    Attributes:
        model: the rewritten module, of the user's own class.
        renamed: old and new name of every parameter of a swapped module.
        passes: what each pass did, in the order they ran.
    """

    model: nn.Module
    renamed: tuple[tuple[str, str], ...]
    passes: tuple[PassResult, ...]


def rewrite(
    plan: Plan,
    model: nn.Module,
    *,
    inplace: bool = False,
    keep_original: bool = True,
    passes: Sequence[Pass] | None = None,
) -> Rewritten:
    """Apply a plan: swap submodules of the model for those of the ensemble.

    The members' weights are drawn as the plan says; untouched layers keep theirs bit for bit.
    The result computes another function than the original, with the same signature
    (docs/theory.md, section 10).

    Args:
        plan: what to do.
        model: the model it was made for; left untouched unless ``inplace``.
        inplace: whether to change the model itself. After a failure it is as it was.
        keep_original: whether to keep what `revert` needs, about the original's size again.
        passes: which passes to run; every default one if not given.

    Raises:
        StalePlanError: if the plan was made for another model or one has been applied already.
        RewriteError: if a pass fails, the model cannot be copied, or it is wrapped and should be
            changed in place.
    """
    if inplace:
        refuse_wrapped(model)
    model = unwrap(model)
    if plan.untied:
        model = _untied(model, inplace)
    _check(plan, model)
    target = model if inplace else _copy(model)
    session = Session(target, plan)
    try:
        results = run(default_passes() if passes is None else passes, session)
        renamed = session.renamed()
    except BaseException:
        session.undo()
        raise
    attach(target, session.originals, keep=keep_original, plan=plan)
    return Rewritten(target, renamed, results)


def revert(model: nn.Module) -> nn.Module:
    """Turn a rewritten model back into its original, in place; returns the same model.

    The state dict is then the original's bit for bit, whatever training has happened since.
    The device and the train/eval mode stay as they are now.

    Args:
        model: what `rewrite` returned, or a deep copy of it.

    Raises:
        RewriteError: if the model is not a rewritten one, or did not keep its original.
    """
    record = get_record(model)
    if record is None:
        raise RewriteError(
            f"this {type(model).__name__} is not a rewritten model: there is nothing to revert",
            advice="pass the module that cerewrite.apply or cerewrite.convert returned",
        )
    if record.modules is None:
        raise RewriteError(
            f"this {type(model).__name__} was rewritten without keeping its original",
            advice="build the model anew, or rewrite it with keep_original=True",
        )
    restore(model, record)
    return model


def renamed(model: nn.Module) -> tuple[tuple[str, str], ...]:
    """Old and new parameter names of a rewritten model; empty if it did not keep its original."""
    record = get_record(model)
    return () if record is None or record.modules is None else renames(model, record.modules)


def _untied(model: nn.Module, inplace: bool) -> nn.Module:
    new, parted = untie(model)
    if inplace and new is not model:
        raise RewriteError(
            f"the plan unties '{parted[0]}', which is done in a copy only",
            advice="rewrite a copy (inplace=False), or untie the model yourself",
        )
    return new


def _check(plan: Plan, model: nn.Module) -> None:
    """Refuse a plan that does not belong to a model."""
    if is_rewritten(model):
        raise StalePlanError(
            f"a plan has been applied to this {type(model).__name__} already",
            advice="apply the plan to a fresh model, or call cerewrite.revert first",
        )
    found = fingerprint(model)
    if found != plan.fingerprint:
        raise StalePlanError(
            f"the plan was made for a {plan.model} with fingerprint {plan.fingerprint[:12]}, "
            f"this {type(model).__name__} has {found[:12]}",
            advice="make the plan again for this model",
        )
    _require_named(plan, model)


def _require_named(plan: Plan, model: nn.Module) -> None:
    """What a plan says of its model besides the fingerprint must be so: limits refer to it."""
    if plan.model != class_name(model):
        raise StalePlanError(
            f"plan.model is {plan.model}, but the model is a {class_name(model)}",
            advice=f"write {class_name(model)}, or make the plan again for this model",
        )
    params = sum(p.numel() for p in model.parameters() if not is_lazy(p))
    if plan.baseline.params != params:
        raise StalePlanError(
            f"plan.baseline.params is {plan.baseline.params:,}, but the model has {params:,}",
            advice="make the plan again for this model",
        )


def _copy(model: nn.Module) -> nn.Module:
    try:
        return deep_copy(model, hooks=True)
    except Exception as error:
        raise RewriteError(
            f"this {type(model).__name__} cannot be copied: {type(error).__name__}: {error}",
            advice="mend its __deepcopy__, or rewrite it in place (inplace=True)",
        ) from error
