"""Membership: every rewritten region equals separate narrow networks whose outputs are added.

The wide model runs once in float64 and the outputs of all exit layers are recorded. Then, for
each j, every region's modules are replaced by those of its member j alone, and the model runs
again. At each exit the narrow output is added up and the *recorded* output is handed on
(teacher forcing), so that everything downstream sees the same values and one run serves all
regions at once. The sums over the members must equal what was recorded.

Sampled layers outside every region see the same values in every run;
their recorded outputs are handed on instead of being computed again. A run ends at its last
exit.

A narrow member may be dead (all ReLUs off) on the few example inputs. Exits to which no member
contributes are compared again with other signs of the weights
(`cerewrite.verifier.perturb.resample_signs`); one that stays silent is a fault.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cerewrite.ir import Check, Plan
from cerewrite.ir.inputs import Inputs
from cerewrite.ops import sampled_of
from cerewrite.rewriting.session import Change, changes_of, set_submodule
from cerewrite.runtime.aliases import aliases
from cerewrite.runtime.doubling import double_precision, widened
from cerewrite.runtime.threads import threads
from cerewrite.verifier.members import RegionModule, pieces
from cerewrite.verifier.perturb import ATTEMPTS, perturb, resample_signs
from cerewrite.verifier.running import (
    LIMIT,
    call,
    doubled,
    fresh_copy,
    on_meta,
    relative_error,
)
from cerewrite.verifier.shapes import smaller

LEAST_ROOM = 2**28
"""Bytes of outputs that are handed on, or as many as the model's parameters have if those are
more; layers behind them are computed again in every run."""


def check_membership(
    original: nn.Module, rewritten: nn.Module, plan: Plan, inputs: Inputs
) -> list[Check]:
    """For every region and exit: the sum over members equals the ensemble, to 1e-10 in float64.

    Runs in evaluation mode on a copy whose norms, biases and zero weights are perturbed
    (`cerewrite.verifier.perturb`), so that nothing hides behind a constant. Fails too where the
    comparison would be empty: an exit that is never called or to which no member contributes.
    The figure is the largest absolute error over the largest absolute output, worst exit.
    """
    changes = tuple(changes_of(plan))
    if not changes:
        return [Check("membership", True, "no region was split", 0.0, LIMIT)]
    if on_meta(rewritten):
        return [Check("membership", True, "not run: parameters are on the meta device")]
    inputs = doubled(smaller(inputs, original, rewritten, training=False))
    verdicts: list[_Verdict] = []
    unheard: frozenset[str] | None = None
    for attempt in range(ATTEMPTS):
        verdict = _attempt(rewritten, changes, inputs, attempt)
        if verdict.fault is not None and verdicts:
            continue  # revived weights may overflow where the model's own do not
        verdicts.append(verdict)
        unheard = verdict.unheard if unheard is None else unheard & verdict.unheard
        if verdict.fault is not None or not unheard:
            break
    return [_check(verdicts, sorted(unheard or ()), len(changes))]


def _attempt(
    rewritten: nn.Module, changes: Sequence[Change], inputs: Inputs, attempt: int
) -> _Verdict:
    """Run the wide model and every member once, on perturbed weights."""
    wide = widened(fresh_copy(rewritten, training=False))
    perturb(wide)
    trial = _Trial(wide, pieces(wide, changes), resample_signs(wide, inputs, attempt))
    most = max(change.split.multiplicity for change in changes)
    try:
        with torch.no_grad():
            trial.record()
            with threads(max(1, torch.get_num_threads() // most)):
                for index in range(most):
                    trial.run_member(index)
        return trial.verdict()
    finally:
        trial.let_go()


def _check(verdicts: Sequence[_Verdict], unheard: Sequence[str], regions: int) -> Check:
    """All attempts in one check: no fault, every exit heard once, every sum right."""
    first = verdicts[0]
    fault = first.fault
    if fault is None and unheard:
        fault = f"'{unheard[0]}' gets nothing from any member on these inputs"
    if fault is not None:
        return Check("membership", False, fault, None, LIMIT)
    worst = max(verdicts, key=lambda verdict: verdict.worst)
    detail = f"{regions} regions, {first.exits} exits, worst at '{worst.where}'"
    if first.silent:
        detail += f"; {first.silent} members give nothing on these inputs"
    if len(verdicts) > 1:
        detail += f"; weights of other signs tried {len(verdicts) - 1} times"
    return Check("membership", worst.worst <= LIMIT, detail, worst.worst, LIMIT)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one attempt showed.

    Attributes:
        fault: why an exit's comparison says nothing, whatever the weights.
        unheard: exits to which no member contributed.
        worst: largest relative error of a sum; infinite if one is not a number.
        where: the exit of that error.
        exits: how many exits there are.
        silent: calls of members that contributed nothing.
    """

    fault: str | None
    unheard: frozenset[str]
    worst: float
    where: str
    exits: int
    silent: int


class _Done(BaseException):
    """Ends a run after its last exit; no `Exception`, so that no model catches it."""


class _Trial:
    """The wide model, what was recorded of it, and the members' sums so far."""

    def __init__(self, model: nn.Module, parts: Sequence[RegionModule], inputs: Inputs) -> None:
        self.model = model
        self.pieces = parts
        self.inputs = inputs
        self.others = aliases(model)
        self.recorded: dict[str, list[Tensor]] = defaultdict(list)
        self.totals: dict[str, list[Tensor]] = {}
        self.silent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.index = 0
        self.room = max(LEAST_ROOM, sum(p.numel() * p.element_size() for p in model.parameters()))
        self.dropped: set[str] = set()
        floating = [p for p in model.parameters() if p.is_floating_point()]
        self.late = any(p.dtype != torch.float64 for p in floating)
        self.waiting: dict[str, int] = {}

    def record(self) -> None:
        """Run the wide model; note what exits and layers outside the regions return."""
        exits = {piece.name for piece in self.pieces if piece.is_exit}
        inside = {piece.name for piece in self.pieces} - exits
        noted = {
            name: module
            for name, module in self.model.named_modules()
            if name in exits or (sampled_of(module) and name not in inside)
        }
        hooks = [
            module.register_forward_hook(self._note(name, always=name in exits))
            for name, module in noted.items()
        ]
        with double_precision(late=self.late):
            call(self.model, self.inputs)
        for hook in hooks:
            hook.remove()
        for name, module in noted.items():
            if name not in exits and name not in self.dropped:
                module.forward = self._replay(name)
        self.totals = {name: [torch.zeros_like(t) for t in self.recorded[name]] for name in exits}

    def _note(self, name: str, *, always: bool) -> Callable[..., None]:
        def note(module: nn.Module, args: object, output: Tensor) -> None:
            self.room -= 0 if always else output.numel() * output.element_size()
            if always or (self.room >= 0 and name not in self.dropped):
                self.recorded[name].append(output.clone())
            else:
                self.dropped.add(name)
                self.recorded.pop(name, None)

        return note

    def _replay(self, name: str) -> Callable[..., Tensor]:
        def replay(*args: object, **kwargs: object) -> Tensor:
            return self._next(name).clone()

        return replay

    def _next(self, name: str) -> Tensor:
        """What the wide model's module of that name returned at this call."""
        self.calls[name] += 1
        return self.recorded[name][self.calls[name] - 1]

    def run_member(self, index: int) -> None:
        """Run member ``index`` of every region that has one; others repeat their last."""
        live = [piece for piece in self.pieces if index < piece.members]
        self.index = index
        self.waiting = {p.name: len(self.recorded[p.name]) for p in live if p.is_exit}
        for piece in live:
            narrow = piece.narrow(index)
            set_submodule(self.model, piece.name, narrow, self.others)
            if piece.is_exit:
                narrow.register_forward_hook(self._add(piece))
        self.calls.clear()
        with suppress(_Done), double_precision(late=self.late):
            call(self.model, self.inputs)

    def _add(self, piece: RegionModule) -> Callable[..., Tensor]:
        def add(module: nn.Module, args: object, output: Tensor) -> Tensor:
            recorded = self._next(piece.name)
            if piece.name in self.waiting:
                self.totals[piece.name][self.calls[piece.name] - 1] += output
                self.silent[piece.name] += not bool(_without_bias(module, output).any())
                self.waiting[piece.name] -= 1
                if not any(self.waiting.values()):
                    raise _Done
            return piece.share(recorded, self.index).clone()

        return add

    def let_go(self) -> None:
        """Forget the model, whose hooks know the trial: its memory is free at once, not later."""
        self.model, self.pieces = nn.Module(), ()
        self.recorded.clear()
        self.totals.clear()

    def verdict(self) -> _Verdict:
        """Compare the sums with what was recorded."""
        exits = [piece for piece in self.pieces if piece.is_exit]
        faults = [fault for piece in exits if (fault := self._fault(piece.name)) is not None]
        errors = {} if faults else {piece.name: self._error(piece.name) for piece in exits}
        where = max(errors, key=errors.__getitem__, default="nowhere")
        return _Verdict(
            fault=faults[0] if faults else None,
            unheard=frozenset(piece.name for piece in exits if self._unheard(piece)),
            worst=errors.get(where, 0.0),
            where=where,
            exits=len(exits),
            silent=sum(self.silent[piece.name] for piece in exits),
        )

    def _fault(self, name: str) -> str | None:
        """Why an exit cannot be compared."""
        outputs = self.recorded[name]
        if not outputs:
            return f"'{name}' is never called"
        if not all(bool(output.isfinite().all()) for output in outputs):
            return f"'{name}' gives values that are not finite"
        return None

    def _error(self, name: str) -> float:
        """Largest error of the sums at an exit, over the largest output."""
        worst = 0.0
        for total, wide in zip(self.totals[name], self.recorded[name], strict=True):
            worst = max(worst, relative_error(total, wide))
        return worst

    def _unheard(self, piece: RegionModule) -> bool:
        return self.silent[piece.name] == piece.members * len(self.recorded[piece.name])


def _without_bias(module: nn.Module, output: Tensor) -> Tensor:
    """A sampled layer's output less its bias, along the channel axis."""
    bias, rule = getattr(module, "bias", None), sampled_of(module)
    if bias is None or rule is None:
        return output
    less: Tensor = (output.movedim(rule.axis, -1) - bias).movedim(-1, rule.axis)
    return less
