"""A race's model, data and terms: what is made of them, and kept in its records."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from cerewrite import ir, planning
from cerewrite.api.menu import menu_plans, row_option
from cerewrite.api.options import AnalysisOptions, PlanOptions, RaceOptions
from cerewrite.api.stages import analyze, apply
from cerewrite.errors import NothingGainedError, TrainingError
from cerewrite.ir.raced import Race
from cerewrite.planning.budgets import batches_for, read_requests
from cerewrite.runtime.alone import alone
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from cerewrite.training.racing.fresh import Factory
    from cerewrite.training.racing.lanes import Build, Task
    from cerewrite.training.racing.records import Records
    from cerewrite.training.racing.schedule import By, Schedule

BASELINE = "baseline"

RUNS = 9
"""Interleaved runs behind each design's step time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What a race is asked for, beside its model and its data; see `race`."""

    seconds: float = 600.0
    seeds: int = 5
    steps: int | None = None
    rates: tuple[float, ...] = ()
    by: By = "seconds"
    finalists: int = 2
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A race's model, data and terms, and what is made of them."""

    model: Factory
    first: nn.Module
    task: Task
    terms: Terms
    clock: Clock
    batch: int
    optimiser: str
    init: Any

    def opened(
        self,
        place: Path,
        options: RaceOptions,
        plans: Mapping[str, ir.Plan] | None,
        pick: str | None,
    ) -> Records:
        """The records, refused if they are another race's."""
        from cerewrite.training.racing.records import Records

        found = Records(place)
        found.require(self._identity(options, plans, pick))
        return found

    def planned(self, inputs: object, pick: str | None, options: RaceOptions) -> dict[str, ir.Plan]:
        """The menu's plans.

        Raises:
            NothingGainedError: if none of them changes anything.
        """
        kinds = (AnalysisOptions.__annotations__, PlanOptions.__annotations__)
        ours, asked = ({k: v for k, v in options.items() if k in kind} for kind in kinds)
        budget = read_requests(options.get("budget", "params"))
        batches = batches_for(budget, None, self.batch, None, options.get("allow", ()))
        if options.get("members") is not None:
            ours.setdefault("scope", "network")
        analysis = analyze(
            self.first, inputs, clock=self.clock, **batches, **cast(AnalysisOptions, ours)
        )
        with self.clock("plan"):
            plans = menu_plans(analysis, cast(PlanOptions, asked), pick)
        if not plans:
            raise NothingGainedError(
                f"no plan changes {analysis.model}: there is nothing to race against it",
                advice="another --budget, --scope or --min-gain may give one",
            )
        return plans

    def begin(
        self,
        records: Records,
        plans: Mapping[str, ir.Plan],
        options: RaceOptions,
        given: Mapping[str, ir.Plan] | None,
        pick: str | None,
    ) -> None:
        """Time every design, fit the race to its time, and write down what it is.

        Raises:
            TrainingError: if the time is too short for the baseline and one design.
        """
        from cerewrite.training.racing.schedule import FEWEST, Schedule, fitted, needed

        builds, terms = self._builds(plans), self.terms
        with self.clock("profile"):
            models = {name: build(terms.seed) for name, build in builds.items()}
            times, look = self._times(models)
        wished = Schedule(
            tuple(builds), times, tuple(sorted(terms.rates)), terms.seeds, 0, terms.finalists,
            terms.by,
        )  # fmt: skip
        schedule = fitted(wished, terms.seconds, look, terms.steps)
        if schedule.steps < min(FEWEST, terms.steps or FEWEST):
            raise TrainingError(
                f"{terms.seconds:g} s have room for {schedule.steps} steps of the baseline and "
                f"{schedule.designs[-1]}, with {len(schedule.rates)} rates and {terms.seeds} "
                f"seeds; {FEWEST} say something",
                advice=f"give --seconds {math.ceil(needed(schedule, look))} or more, or fewer "
                "rates or seeds",
            )
        params = {n: sum(p.numel() for p in m.parameters()) for n, m in models.items()}
        records.begin(
            {
                "identity": self._identity(options, given, pick),
                "plans": {name: ir.encode(plan) for name, plan in plans.items()},
                "params": params,
                "schedule": dataclasses.asdict(schedule),
            }
        )

    def run(
        self, records: Records, tell: Callable[[str, float], None]
    ) -> tuple[Race, ir.Plan | None]:
        """Train what is left to train, and say what came of it."""
        from cerewrite.training.racing.driver import drive
        from cerewrite.training.racing.lanes import Trainer
        from cerewrite.training.racing.results import Runner, entrants, winner_of

        assert records.header is not None
        header, terms = records.header, self.terms
        plans = {name: _decoded(item) for name, item in header["plans"].items()}
        schedule = _schedule(header["schedule"])
        trainer = Trainer(
            self._builds(plans), self.task, records.state_of, {"race": header["identity"]["data"]}
        )
        with self.clock("race"):
            drive(schedule, trainer, records, terms.seconds, tell)
        runners = {
            name: Runner(name, "" if name == BASELINE else row_option(name), params)
            for name, params in header["params"].items()
        }
        found, ratios = entrants(schedule, records.points, runners)
        winner, verdict = winner_of(found, terms.by, ratios)
        from cerewrite.training.racing.data import Examples

        whole = isinstance(self.task.data.train, Examples)
        raced = Race(
            model=type(self.first).__name__,
            optimiser=self.optimiser,
            by=terms.by,
            ratios=ratios,
            batch=self.batch if whole else 0,
            seconds=terms.seconds,
            spent=records.spent,
            trainings=len({lane for lane, _ in records.points}),
            entrants=found,
            winner=winner,
            verdict=verdict,
            notes=_notes(schedule, records, self.task.data.said),
        )
        return raced, plans.get(winner)

    def _builds(self, plans: Mapping[str, ir.Plan]) -> dict[str, Build]:
        """What makes each design, the baseline first."""
        from cerewrite.training.racing.fresh import fresh

        def planned(plan: ir.Plan) -> Build:
            def build(seed: int) -> nn.Module:
                init = self.init if callable(self.init) else None
                most = planning.asked_params(plan)
                return apply(
                    dataclasses.replace(plan, seed=seed), fresh(self.model, seed), inplace=True,
                    init=init, max_params=most,
                )  # fmt: skip

            return build

        builds: dict[str, Build] = {BASELINE: lambda seed: fresh(self.model, seed)}
        return builds | {name: planned(plan) for name, plan in plans.items()}

    def _times(self, models: Mapping[str, nn.Module]) -> tuple[tuple[float, ...], float]:
        """Seconds of one training step of each, taken in turns; of one look by the baseline."""
        from cerewrite.timing.interleave import interleave
        from cerewrite.training.racing.lanes import judged, training_step

        rate = min(self.terms.rates)
        with alone():
            steps = [training_step(model, self.task, rate) for model in models.values()]
            samples = interleave(steps, runs=RUNS)
            look = interleave([lambda: judged(models[BASELINE], self.task)], runs=1, least=1)
        return tuple(sample.median for sample in samples), look[0].median

    def _identity(
        self,
        options: RaceOptions,
        plans: Mapping[str, ir.Plan] | None,
        pick: str | None,
    ) -> dict[str, Any]:
        from cerewrite.runtime.fingerprint import fingerprint
        from cerewrite.training.racing.data import digest

        terms = dataclasses.asdict(self.terms)
        del terms["seconds"]
        designs = {
            name: [[s.region, s.multiplicity, list(s.widths)] for s in plan.splits]
            for name, plan in (plans or {}).items()
        }
        loss = getattr(self.task.loss, "__qualname__", None) or repr(self.task.loss)
        asked = {k: str(v) for k, v in options.items() if not callable(v) and v is not None}
        return {
            "model": fingerprint(self.first),
            "data": digest(self.task.data),
            "loss": loss,
            "optimiser": self.optimiser,
            "batch": self.batch,
            "pick": pick,
            "plans": designs,
            "options": asked,
            **terms,
        }


def _decoded(item: Any) -> ir.Plan:
    return ir.loads(ir.Plan, ir.dumps(item), source="a plan in the race's records")


def _schedule(item: Mapping[str, Any]) -> Schedule:
    import msgspec

    from cerewrite.training.racing.schedule import Schedule

    return msgspec.convert(item, Schedule)


def _notes(schedule: Schedule, records: Records, held: str) -> tuple[str, ...]:
    """What else there is to know of a race."""
    from cerewrite.training.racing.schedule import ROUNDS

    notes = [
        f"Seconds are steps times a design's step time, the median of {RUNS} interleaved runs.",
        f"Held out: {held}.",
    ]
    done = schedule.rounds(records.points)
    if schedule.pending(records.points):
        notes.append(
            f"The time was over after {done} of {ROUNDS} rounds; more --seconds go on from there."
        )
    return tuple(notes)
