"""Signal and gradient norms, module by module, against the original's."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cerewrite.errors import EndedError, UsageError
from cerewrite.initialisers import Initialiser, find_initialiser
from cerewrite.ir import Check, Plan
from cerewrite.ir.inputs import Inputs
from cerewrite.ops import sampled_layer, sampled_of
from cerewrite.rewriting.drawing import draw, measure
from cerewrite.rewriting.session import Change, changes_of
from cerewrite.runtime.alone import short_of_memory
from cerewrite.runtime.seeds import generator_for
from cerewrite.verifier.perturb import ATTEMPTS, resample_signs
from cerewrite.verifier.running import as_sentence, fresh_copy, on_meta, send_back
from cerewrite.verifier.shapes import smaller

FACTOR = 10.0
"""How many times larger or smaller a mean square may be than any that the original has, besides
two standard deviations of what draws scatter: of log K, before and after."""
REDRAWS = 3
"""Draws of the original's weights that a module outside of the factor is compared with too."""


@dataclass(slots=True)
class _Energies:
    """What passes one module, all its calls together.

    Attributes:
        signal: mean square of its outputs.
        gradient: sum of squares of the gradient at its outputs, which a width divides.
    """

    signal: float = 0.0
    gradient: float = 0.0


_Run = Mapping[str, _Energies]
"""Both figures, by the module's name."""


def check_signal(
    original: nn.Module, rewritten: nn.Module, plan: Plan, inputs: Inputs
) -> list[Check]:
    """At every module of a split, signal and gradient are within a factor of the original's.

    Members are drawn so that a layer's outputs keep their mean square, and the gradient at its
    outputs, summed over the units, its square (docs/theory.md, section 5); draws of finite width
    scatter about that. So each figure must lie within a factor of the original's (`FACTOR`), as it
    is or, for what lies outside, with the weights of the split layers drawn anew by the plan's
    initialiser: trained weights carry another signal than drawn ones. A weight that is standardised
    to a level that grows with its fan-in is held against the original's times what the level grew,
    its gradients against as much less, which a norm behind makes of it. A few narrow members may be
    dead on a few inputs: what still lies outside is tried with other signs of the weights. What is
    zero in the original may be anything. In training mode, or in evaluation mode where the original
    refuses that; what lies outside in training mode must do so in evaluation mode too, since a
    batch norm over two values hands back a gradient that rests on its eps. The scalar is a random
    projection of all floating-point outputs.
    """
    changes = tuple(changes_of(plan))
    if not changes:
        return [Check("signal", True, "no region was split")]
    if plan.weights == "transfer":
        return [Check("signal", True, "not run: weights are fitted, not drawn; see transfer")]
    if on_meta(rewritten) or on_meta(original):
        return [Check("signal", True, "not run: parameters are on the meta device")]
    try:
        initialiser = find_initialiser(plan.init)
    except UsageError:
        return [Check("signal", True, "not run: weights are drawn by a function of the user's own")]
    names = list(dict.fromkeys(_modules(changes)))
    inputs = smaller(inputs, original, rewritten, training=True)
    levels = _grown(original, rewritten, names)
    before, training = _as_it_is(original, names, inputs)
    if isinstance(before, Exception):
        return [Check("signal", True, f"not run: the original's, {as_sentence(before)}")]
    room = FACTOR * math.exp(2 * math.sqrt(_scatter(plan)))

    def outside(own: _Run, training: bool) -> dict[tuple[str, str], str]:
        run = partial(_energies, names=names, inputs=inputs, training=training)
        runs, after = [own], run(rewritten)
        faults = _faults(names, runs, after, room, levels)
        if faults:
            runs += [
                run(original, prepare=partial(_redraw, changes, initialiser, seed))
                for seed in range(REDRAWS)
            ]
            faults = _faults(names, runs, after, room, levels)
        for attempt in range(1, ATTEMPTS - 1):  # the last makes all positive, and signals grow
            if not faults:
                break
            again = _faults(names, runs, run(rewritten, attempt=attempt), room, levels)
            faults = {key: why for key, why in faults.items() if key in again}
        return faults

    faults = outside(before, training)
    if faults and training:  # batch norms over few values hand hardly any gradient back
        calm, _ = _as_it_is(original, names, inputs, (False,))
        if not isinstance(calm, Exception):
            again = outside(calm, training=False)
            faults = {key: why for key, why in faults.items() if key in again}
    mode = "train" if training else "eval"
    detail = f"{len(names)} modules within a factor of {room:.3g}, in {mode} mode"
    if faults:
        worst = "; ".join(list(faults.values())[:5])
        detail = f"{len(faults)} of {2 * len(names)} norms: {worst}"
    return [Check("signal", not faults, detail, len(faults), 0)]


def _modules(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        yield from (layer.name for layer in change.region.layers)
        yield from (module.name for module in change.region.modules)


def _scatter(plan: Plan) -> float:
    """Variance of log K over draws, before and after together; 0 where no estimate is finite."""
    found = (plan.baseline.log_variance, plan.planned.log_variance)
    return sum(value for value in found if math.isfinite(value) and value > 0)


def _as_it_is(
    original: nn.Module, names: list[str], inputs: Inputs, modes: Sequence[bool] = (True, False)
) -> tuple[_Run | Exception, bool]:
    """The original's own figures and whether in training mode, or why there are none."""
    reason: Exception | None = None
    for training in modes:
        try:
            return _energies(original, names, inputs, training), training
        except EndedError:
            raise
        except Exception as error:  # whatever the user's forward raises is the reason
            if short_of_memory(error):
                raise
            reason = error
    assert reason is not None
    return reason, False


def _energies(
    model: nn.Module,
    names: list[str],
    inputs: Inputs,
    training: bool,
    attempt: int = 0,
    prepare: Callable[[nn.Module], None] = lambda model: None,
) -> _Run:
    """Both figures of every module of one of the names; a copy runs, one gradient is held."""
    model = fresh_copy(model, training=training)
    prepare(model)
    inputs = resample_signs(model, inputs, attempt)
    modules = dict(model.named_modules())
    found: dict[str, _Energies] = defaultdict(_Energies)
    for name in names:
        if name in modules:  # a free parameter has no outputs
            modules[name].register_forward_hook(_listen(found[name]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_free)  # type: ignore[no-untyped-call]
    send_back(model, inputs)
    return dict(found)


def _free(parameter: Tensor) -> None:
    parameter.grad = None


def _listen(energies: _Energies) -> Callable[[nn.Module, object, Tensor], None]:
    def look(module: nn.Module, args: object, output: Tensor) -> None:
        if output.numel():
            energies.signal += float(output.detach().double().square().mean())
        if output.requires_grad:
            output.register_hook(partial(_receive, energies))  # type: ignore[no-untyped-call]

    return look


def _receive(energies: _Energies, gradient: Tensor) -> None:
    energies.gradient += float(gradient.detach().double().square().sum())


def _grown(original: nn.Module, rewritten: nn.Module, names: list[str]) -> dict[str, float]:
    """What no draw of a weight moves (`SampledLayer.level`), over the original's, by name."""
    pairs = [dict(model.named_modules()) for model in (rewritten, original)]
    new, old = ([_level(modules.get(name)) for name in names] for modules in pairs)
    return {name: after / before for name, after, before in zip(names, new, old, strict=True)}


def _level(module: nn.Module | None) -> float:
    rule = None if module is None else sampled_of(module)
    return 1.0 if module is None or rule is None else rule.level(module)


def _faults(
    names: list[str],
    before: Sequence[_Run],
    after: _Run,
    room: float,
    levels: Mapping[str, float],
) -> dict[tuple[str, str], str]:
    """What lies outside of the original's range, widened by the factor, at each layer's level."""
    found: dict[tuple[str, str], str] = {}
    for name in names:
        grew = levels[name]
        for kind, what, expected in (
            ("signal", "outputs", grew),
            ("gradient", "gradients at its outputs", 1 / grew),
        ):
            old = [getattr(run[name], kind) for run in before if name in run]
            if name not in after or not old or not any(old):
                continue
            new = getattr(after[name], kind) / expected
            least, most = min(value for value in old if value), max(old)
            if not least / room <= new <= most * room:
                times = f"{new / most:.2g} times the original's"
                found[name, kind] = f"'{name}': the mean square of its {what} is {times}"
    return found


def _redraw(
    changes: Sequence[Change], initialiser: Initialiser, seed: int, model: nn.Module
) -> None:
    """Draw the split layers of the original by the plan's initialiser, in place."""
    modules = dict(model.named_modules())
    for change in changes:
        for layer in change.region.layers:
            module = modules.get(layer.name)
            rule = None if module is None else sampled_of(module)
            if module is None or rule is None:
                continue
            generator = generator_for(seed, layer.name)
            pieces = [piece for row in rule.member_weights(module, 1, 1) for piece in row]
            found = measure(sampled_layer(layer.op), layer.name, module)
            with torch.no_grad():
                draw(module, pieces, 1.0, found, initialiser, generator)
