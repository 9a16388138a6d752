"""`race`: theory proposes designs, the user's data decide between them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from cerewrite import ir, output, planning
from cerewrite.api.conversion import Conversion, convert
from cerewrite.api.menu import row_option
from cerewrite.api.options import RaceOptions, check_options
from cerewrite.api.race_field import Field, Terms
from cerewrite.api.stages import PathLike, as_inputs
from cerewrite.errors import NothingGainedError, UsageError
from cerewrite.ir.raced import Race
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from torch import nn

    from cerewrite.training.racing.fresh import Factory
    from cerewrite.training.racing.lanes import Loss, MakeOptimiser
    from cerewrite.training.racing.schedule import By


@dataclasses.dataclass(frozen=True, slots=True)
class Raced:
    """What `race` returns.

    Attributes:
        race: every design at equal steps and at equal seconds, and the winner.
        plan: the winner's; None where the baseline has won.
        inputs: the example inputs that plans were made on.
        conversion: what was written to ``out``, if anything.
    """

    race: Race
    plan: ir.Plan | None
    inputs: ir.Inputs
    conversion: Conversion | None = None


def race(
    model: Factory,
    example_inputs: object = None,
    *,
    data: object,
    loss: Loss,
    test: object = None,
    seconds: float = 600.0,
    seeds: int = 5,
    steps: int | None = None,
    rates: Sequence[float] = (),
    optimiser: str | MakeOptimiser = "adamw",
    batch: int = 32,
    by: By = "seconds",
    finalists: int = 2,
    plans: Mapping[str, ir.Plan] | None = None,
    pick: str | None = None,
    records: PathLike | None = None,
    out: PathLike | None = None,
    overwrite: bool = False,
    source: str | None = None,
    clock: Clock | None = None,
    tell: Callable[[str, float], None] = lambda text, share: None,
    **options: Unpack[RaceOptions],
) -> Raced:
    """Train a model and the menu's plans for it in turns, and say which trains best.

    Rates and designs are weeded out by successive halving on one seed, by training loss at equal
    seconds (or steps); the finalists train on fresh seeds, in rounds, and are compared pair by
    pair on the same seeds, at equal steps and at equal seconds. Seconds are steps times the
    design's step time, which is measured in turns before the race.

    Args:
        model: a function that makes the model, called for every seed; or a module, of whose
            parameters the entries are drawn in another order (`cerewrite.training.racing.fresh`).
        example_inputs: as for `analyze`; those of the first batch if not given.
        data: ``(inputs, targets)`` as tensors, batch first; or a list or DataLoader of batches.
        loss: of outputs and targets, a scalar.
        test: held-out data like ``data``; without any, a fifth of the data is held out.
        seconds: for the race, the analysis not counted; runs that are resumed are added up.
        seeds: trainings of each finalist, at least 2.
        steps: optimiser steps of the baseline in the finals; as many as there is time for.
        rates: learning rates to try; four of the optimiser's own if not given.
        optimiser: ``sgd`` (momentum 0.9), ``adam``, ``adamw``, or a function of parameters and
            rate. Rates are constant.
        batch: examples per step, where data are tensors.
        by: what makes the winner, held-out loss at equal ``seconds`` or at equal ``steps``.
        finalists: designs besides the baseline in the finals, at most.
        plans: plans to race by name, in place of the menu's.
        pick: the only row of the menu to race.
        records: folder in which every result is kept, and from which a race goes on that was
            stopped or killed; without it nothing is kept.
        out: folder to write the winner to, as `convert` does; its weights are fresh.
        overwrite: replace an earlier conversion in ``out``.
        source: spec of the model's factory.
        clock: times the stages.
        tell: is told what is trained now, and the share of the time that is spent.
        options: those of `analyze` and `plan`; the step is timed at ``batch``.

    Raises:
        UsageError: if an option cannot be used.
        TrainingError: if the data do not fit the model, the loss is not finite, the baseline
            diverges at every rate, the time is too short, or the records are another race's;
            what was learnt is kept in the records.
        NothingGainedError: if no plan changes anything; or if ``out`` is given and the baseline
            wins.
        CerewriteError: see `analyze`, `plan` and `convert`.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4)))
        >>> x = torch.randn(64, 16)
        >>> found = race(net, data=(x, x[:, :4].repeat(1, 4)), loss=torch.nn.MSELoss(), seeds=2,
        ...              steps=4, rates=[0.01], draws=16, allow="all", seconds=60)
        >>> found.race.entrants[0].name, found.race.entrants[1].at_steps.steps
        ('baseline', 4)
    """
    from cerewrite.training.racing.data import arguments, read_data
    from cerewrite.training.racing.fresh import fresh
    from cerewrite.training.racing.lanes import Task, check_task, find_optimiser

    check_options(race, options, RaceOptions)
    make, usual, name = find_optimiser(optimiser)
    terms = Terms(
        seconds, seeds, steps, tuple(rates) or usual, by, finalists, options.get("seed", 0)
    )
    _check(terms)
    if out is not None:
        output.check_target(out, folder=True, overwrite=overwrite)
    task = Task(read_data(data, test, batch=batch, seed=terms.seed), loss, make)
    if options.get("untie"):
        model = _untied(model)
    first = fresh(model, terms.seed)
    check_task(first, task)
    if example_inputs is None:
        args, kwargs = arguments(next(task.data.stream(0, 0))[0])
        example_inputs = kwargs or args
    field = Field(model, first, task, terms, clock or Clock(), batch, name, options.get("init"))
    with _folder(records) as place:
        known = field.opened(place, options, plans, pick)
        if known.header is None:
            made = plans or field.planned(example_inputs, pick, options)
            field.begin(known, made, options, plans, pick)
        found, plan = field.run(known, tell)
    result = Raced(found, plan, as_inputs(example_inputs))
    if out is None:
        return result
    written = write_winner(result, first, out, overwrite=overwrite, source=source, clock=clock)
    return dataclasses.replace(result, conversion=written)


def write_winner(
    raced: Raced,
    model: nn.Module,
    out: PathLike,
    *,
    overwrite: bool = False,
    source: str | None = None,
    clock: Clock | None = None,
) -> Conversion:
    """Convert a model by the plan that has won, with fresh weights, as `convert` does.

    Args:
        raced: what `race` returned.
        model: the model that was raced.
        out: folder to write.
        overwrite: replace an earlier conversion there.
        source: spec of the model's factory.
        clock: times the stages.

    Raises:
        NothingGainedError: if the baseline has won: there is nothing to write.
        CerewriteError: see `convert`.
    """
    if raced.plan is None:
        raise NothingGainedError(
            raced.race.verdict,
            advice=f"keep the original; convert {row_option('held')} writes a plan all the same",
        )
    return convert(
        model,
        raced.inputs,
        plan=raced.plan,
        out=out,
        overwrite=overwrite,
        source=source,
        clock=clock,
        max_params=planning.asked_params(raced.plan),
    )


def _untied(model: nn.Module | Callable[[], nn.Module]) -> Callable[[], nn.Module] | nn.Module:
    """The model, or what makes it, with nothing tied: the baseline of plans that untie."""
    from torch import nn

    from cerewrite.runtime.untie import untie

    if isinstance(model, nn.Module):
        return untie(model)[0]
    make = model
    return lambda: untie(make())[0]


@contextlib.contextmanager
def _folder(records: PathLike | None) -> Iterator[Path]:
    """The folder of records, held for the time of the run; one that goes away without any."""
    if records is None:
        with tempfile.TemporaryDirectory(prefix="cerewrite-race-") as place:
            yield Path(place)
        return
    with output.claim(records):
        yield Path(records)


def _check(terms: Terms) -> None:
    if not terms.rates or not all(math.isfinite(r) and r > 0 for r in terms.rates):
        raise UsageError(
            f"learning rates {list(terms.rates)}", advice="give one rate or more, each above 0"
        )
    if len(set(terms.rates)) < len(terms.rates):
        raise UsageError("a learning rate is given twice", advice="give each of them once")
    if not (math.isfinite(terms.seconds) and terms.seconds > 0):
        raise UsageError(f"{terms.seconds} seconds", advice="give a time above 0")
    if terms.seeds < 2 or terms.finalists < 1 or (terms.steps is not None and terms.steps < 1):
        raise UsageError(
            f"{terms.seeds} seeds, {terms.finalists} finalists, {terms.steps} steps",
            advice="give 2 seeds or more, 1 finalist or more, 1 step or more",
        )
    if terms.by not in ("seconds", "steps"):
        raise UsageError(f"no winner by '{terms.by}'", advice="give by='seconds' or by='steps'")
