"""Membership: every rewritten region equals separate narrow networks whose outputs are added.

The wide model runs once in float64 and the outputs of all exit layers are recorded. Then, for
each j, every region's modules are replaced by those of its member j alone, and the model runs
again. At each exit the narrow output is added up and the *recorded* output is handed on
(teacher forcing), so that everything downstream sees the same values and one run serves all
regions at once. The sums over the members must equal what was recorded.

Linear, convolution and norm modules outside every region see the same values in every run;
their recorded outputs are handed on instead of being computed again. A run ends at its last
exit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.ir import Check, Plan
from cerewrite.rewriter.session import changes_of, set_submodule
from cerewrite.verifier.members import Piece, pieces
from cerewrite.verifier.perturb import perturb
from cerewrite.verifier.running import (
    Inputs,
    call,
    double_precision,
    doubled,
    fresh_copy,
    on_meta,
    threads,
)
from cerewrite.verifier.shapes import smaller

LIMIT = 1e-10
_REPLAYED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


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
    inputs = smaller(inputs, original, rewritten, training=False)
    wide = fresh_copy(rewritten, training=False).double()
    perturb(wide)
    trial = _Trial(wide, pieces(wide, changes), doubled(inputs))
    most = max(change.split.multiplicity for change in changes)
    with torch.no_grad(), double_precision():
        trial.record()
        with threads(max(1, torch.get_num_threads() // most)):
            for index in range(most):
                trial.run_member(index)
    return [trial.verdict(len(changes))]


class _Done(BaseException):
    """Ends a run after its last exit; no `Exception`, so that no model catches it."""


class _Trial:
    """The wide model, what was recorded of it, and the members' sums so far."""

    def __init__(self, model: nn.Module, parts: Sequence[Piece], inputs: Inputs) -> None:
        self.model = model
        self.pieces = parts
        self.inputs = inputs
        self.recorded: dict[str, list[Tensor]] = defaultdict(list)
        self.totals: dict[str, list[Tensor]] = {}
        self.silent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def record(self) -> None:
        """Run the wide model; note what exits and layers outside the regions return."""
        exits = {piece.name for piece in self.pieces if piece.is_exit}
        inside = {piece.name for piece in self.pieces} - exits
        noted = {
            name: module
            for name, module in self.model.named_modules()
            if name in exits or (isinstance(module, _REPLAYED) and name not in inside)
        }
        hooks = [module.register_forward_hook(self._note(name)) for name, module in noted.items()]
        call(self.model, self.inputs)
        for hook in hooks:
            hook.remove()
        for name, module in noted.items():
            if name not in exits:
                module.forward = self._replay(name)
        self.totals = {name: [torch.zeros_like(t) for t in self.recorded[name]] for name in exits}

    def _note(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, output: Tensor) -> None:
            self.recorded[name].append(output.clone())

        return note

    def _replay(self, name: str) -> Callable[..., Tensor]:
        def replay(*args: Any, **kwargs: Any) -> Tensor:
            return self._next(name).clone()

        return replay

    def _next(self, name: str) -> Tensor:
        """What the wide model's module of that name returned at this call."""
        self.calls[name] += 1
        return self.recorded[name][self.calls[name] - 1]

    def run_member(self, index: int) -> None:
        """Run member ``index`` of every region that has one; others repeat their last."""
        waiting = {
            piece.name: len(self.recorded[piece.name])
            for piece in self.pieces
            if piece.is_exit and index < piece.members
        }
        for piece in self.pieces:
            narrow = piece.narrow(min(index, piece.members - 1))
            set_submodule(self.model, piece.name, narrow)
            if piece.is_exit:
                narrow.register_forward_hook(self._add(piece, index, waiting))
        self.calls.clear()
        with suppress(_Done):
            call(self.model, self.inputs)

    def _add(self, piece: Piece, index: int, waiting: dict[str, int]) -> Callable[..., Tensor]:
        def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            recorded = self._next(piece.name)
            if index < piece.members:
                self.totals[piece.name][self.calls[piece.name] - 1] += output
                self.silent[piece.name] += not bool(_without_bias(module, output).any())
                waiting[piece.name] -= 1
                if not any(waiting.values()):
                    raise _Done
            return piece.share(recorded, index).clone()

        return add

    def verdict(self, regions: int) -> Check:
        """Compare the sums with what was recorded."""
        silent, worst = 0, 0.0
        exits = [piece for piece in self.pieces if piece.is_exit]
        where = exits[0].name if exits else "nowhere"
        for piece in exits:
            fault = self._fault(piece)
            if fault is not None:
                return Check("membership", False, f"'{piece.name}' {fault}", None, LIMIT)
            silent += self.silent[piece.name]
            for total, wide in zip(self.totals[piece.name], self.recorded[piece.name], strict=True):
                error = float((total - wide).abs().max() / wide.abs().max())
                if not error <= worst:
                    worst, where = error, piece.name
        detail = f"{regions} regions, {len(exits)} exits, worst at '{where}'"
        if silent:
            detail += f"; {silent} members give nothing on these inputs"
        return Check("membership", worst <= LIMIT, detail, worst, LIMIT)

    def _fault(self, piece: Piece) -> str | None:
        """Why an exit's comparison would say nothing."""
        outputs = self.recorded[piece.name]
        if not outputs:
            return "is never called"
        if not all(bool(output.isfinite().all()) for output in outputs):
            return "gives values that are not finite"
        if self.silent[piece.name] == piece.members * len(outputs):
            return "gets nothing from any member on these inputs"
        return None


def _without_bias(module: nn.Module, output: Tensor) -> Tensor:
    """A layer's output less its bias, channels on axis 1 for convolutions, last for linears."""
    bias, weight = getattr(module, "bias", None), getattr(module, "weight", None)
    if bias is None or weight is None:
        return output
    less: Tensor = output - bias.view(-1, *(1,) * (weight.dim() - 2))
    return less
