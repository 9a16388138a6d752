"""A race from a model and data to a winner: the verdict, its records, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite import ir
from cerewrite.api.racing import write_winner
from cerewrite.errors import NothingGainedError, TargetTakenError, TrainingError, UsageError
from cerewrite.ir.raced import Entrant, Interval, Standing
from cerewrite.training.racing import lanes
from cerewrite.training.racing.records import NAME
from cerewrite.training.racing.results import winner_of

F = nn.functional


def net() -> nn.Module:
    return nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(16, 16), nn.ReLU())),
                         nn.Linear(16, 2))  # fmt: skip


def data(count: int = 80) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 16, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


@pytest.fixture(scope="module")
def plans() -> dict[str, ir.Plan]:
    analysis = cerewrite.analyze(net(), data()[0][:2], estimator="analytic", gain="he")
    (region,) = analysis.regions
    return {
        name: cerewrite.plan(analysis, fixed={region.name: design}, allow="all", budget="params=4x")
        for name, design in (("two", "2x8"), ("four", "4x4"))
    }


def race(plans: dict[str, ir.Plan] | None, **more: Any) -> Any:
    given = {"data": data(), "loss": F.cross_entropy, "seconds": 1e4, "seeds": 2, "steps": 4,
             "rates": (0.01, 0.001), "batch": 16, "plans": plans, **more}  # fmt: skip
    return cerewrite.race(net, **given)


def test_every_design_is_compared_with_the_baseline(plans: dict[str, ir.Plan]) -> None:
    told: list[float] = []
    found = race(plans, tell=lambda text, share: told.append(share)).race
    assert [item.name for item in found.entrants] == ["baseline", "two", "four"]
    assert found.ratios and found.trainings == 3 * 2 + 3 * 2 and len(told) >= found.trainings
    for item in found.entrants:
        assert item.at_steps is not None and item.at_seconds is not None
        assert item.at_steps.steps == 4 and item.at_steps.runs == item.runs == 2
        level = found.entrants[0].step * 4
        assert abs(item.at_seconds.seconds - level) <= item.step
        assert item.at_steps.metric is not None and 0 <= item.at_steps.metric <= 1
        assert [at.steps for at in item.curve] == sorted({at.steps for at in item.curve})
    assert found.entrants[0].at_steps.loss_change == Interval(1.0, 1.0, 1.0)
    assert json.loads(ir.dumps(found))["winner"] in ("baseline", "two", "four")


def test_a_race_that_is_killed_anywhere_goes_on_and_ends_alike(
    plans: dict[str, ir.Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedule is copied over, as step times are measured anew in every race."""
    only = {"two": plans["two"]}
    whole = race(only, records=tmp_path / "whole").race
    lines = (tmp_path / "whole" / NAME).read_text().splitlines(keepends=True)
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / NAME).write_text(lines[0])
    train, left = lanes.Trainer.advance, [3]

    def dying(self: lanes.Trainer, job: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return train(self, job)

    monkeypatch.setattr(lanes.Trainer, "advance", dying)
    for _ in range(len(lines)):
        left[0] = 3
        try:
            again = race(only, records=killed).race
            break
        except KeyboardInterrupt:
            continue
    for one, other in zip(whole.entrants, again.entrants, strict=True):
        assert (one.rate, one.at_steps, one.at_seconds, one.curve) == (
            other.rate, other.at_steps, other.at_seconds, other.curve
        )  # fmt: skip
    assert whole.verdict == again.verdict and not list(killed.glob("*.safetensors"))


def test_records_of_another_race_are_refused(plans: dict[str, ir.Plan], tmp_path: Path) -> None:
    race({"two": plans["two"]}, records=tmp_path / "r")
    with pytest.raises(TrainingError, match="another race: rates differ"):
        race({"two": plans["two"]}, records=tmp_path / "r", rates=(0.5,))
    with pytest.raises(TrainingError, match="another race: data differ"):
        race({"two": plans["two"]}, records=tmp_path / "r", data=data(90))


def test_a_folder_of_records_is_one_races_at_a_time(
    plans: dict[str, ir.Plan], tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from cerewrite import output

    with (
        ThreadPoolExecutor(1) as pool,
        output.claim(tmp_path / "r"),
        pytest.raises(TargetTakenError),
    ):
        pool.submit(race, plans, records=tmp_path / "r").result()


def test_a_race_too_short_for_one_design_says_how_long_it_must_be(
    plans: dict[str, ir.Plan],
) -> None:
    with pytest.raises(TrainingError, match="have room for 0 steps of the baseline") as caught:
        race(plans, seconds=1e-3, steps=None)
    assert "give --seconds" in caught.value.advice


def test_time_that_is_over_keeps_what_was_learnt(
    plans: dict[str, ir.Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training takes a hundred times what it was timed to."""
    monkeypatch.setattr(
        "cerewrite.api.race_field.Field._times", lambda self, models: ((1e-4,) * 3, 1e-4)
    )
    train = lanes.Trainer.advance
    monkeypatch.setattr(lanes.Trainer, "advance", lambda s, job: (train(s, job)[0], 0.05))
    with pytest.raises(TrainingError, match="are over before the first round") as caught:
        race(plans, seconds=0.1, records=tmp_path / "r")
    assert "--seconds 0.2" in caught.value.advice
    kept = len((tmp_path / "r" / NAME).read_text().splitlines())
    found = race(plans, seconds=1e4, records=tmp_path / "r").race
    assert kept > 1 and found.entrants[0].at_steps is not None


def test_rates_that_all_diverge_are_said(plans: dict[str, ir.Plan], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"baseline diverges at every rate: 1e\+20") as caught:
        race(plans, rates=(1e20,), optimiser="sgd", records=tmp_path / "r")
    assert "--rates" in caught.value.advice and (tmp_path / "r" / NAME).exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rates": (0.1, -1.0)}, "learning rates"),
        ({"rates": (0.1, 0.1)}, "given twice"),
        ({"seeds": 1}, "1 seeds"),
        ({"seconds": float("nan")}, "nan seconds"),
        ({"by": "luck"}, "by 'luck'"),
        ({"optimiser": "sdg"}, "unknown optimiser"),
        ({"rates": (), "optimiser": torch.optim.SGD}, "learning rates"),
        ({"measur": "nu"}, "measur"),
    ],
)
def test_requests_that_make_no_sense_are_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        race(None, **more)


def test_losses_that_may_be_negative_are_compared_by_differences(
    plans: dict[str, ir.Plan],
) -> None:
    def log_likelihood(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) - 3.0

    found = race({"two": plans["two"]}, loss=log_likelihood).race
    assert not found.ratios and found.entrants[0].at_steps.loss_change == Interval(0.0, 0.0, 0.0)


def entrant(name: str, loss: tuple[float, float, float], failed: int = 0) -> Entrant:
    change = Interval(*loss)
    standing = Standing(9, 9.0, 1.0, loss[0], None, change, change, None, 5)
    return Entrant(name, "", 1, 1.0, 0.1, False, 5, failed, "", standing, standing)


@pytest.mark.parametrize(
    ("rivals", "winner"),
    [
        ([entrant("a", (0.8, 0.7, 0.9)), entrant("b", (0.7, 0.6, 0.8))], "b"),
        ([entrant("a", (0.8, 0.7, 0.9)), entrant("b", (0.5, 0.2, 1.1))], "a"),
        ([entrant("a", (0.8, 0.6, 1.1))], "baseline"),
        ([entrant("a", (0.5, 0.4, 0.6), failed=1)], "baseline"),
        ([], "baseline"),
    ],
)
def test_a_winner_is_better_beyond_the_interval(rivals: list[Entrant], winner: str) -> None:
    first = entrant("baseline", (1.0, 1.0, 1.0))
    name, verdict = winner_of((first, *rivals), "seconds", True)
    assert name == winner and name in verdict
    if winner == "baseline" and rivals:
        assert "no design's held-out loss is shown to be lower" in verdict


@pytest.mark.thorough
def test_the_winner_is_written_as_convert_does(plans: dict[str, ir.Plan], tmp_path: Path) -> None:
    import dataclasses

    raced = race({"two": plans["two"]})
    with pytest.raises(NothingGainedError):
        write_winner(dataclasses.replace(raced, plan=None), net(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    won = dataclasses.replace(raced, plan=plans["two"])
    written = write_winner(won, net(), tmp_path / "out")
    assert written.plan.splits == plans["two"].splits
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.thorough
def test_a_race_makes_the_menus_plans_itself() -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
    x = data()[0].repeat(1, 4)
    found = cerewrite.race(
        wide, data=(x, x), loss=F.mse_loss, seconds=1e4, seeds=2, steps=2, rates=(0.01,),
        estimator="analytic", optimiser="sgd",
    )  # fmt: skip
    assert len(found.race.entrants) > 1 and found.race.entrants[1].option
    assert found.race.entrants[0].at_steps.metric is None


class Tied(nn.Module):
    """A table that is the read-out too."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 16)
        self.body = nn.Sequential(*(nn.Linear(16, 16) for _ in range(4)))
        self.out = nn.Linear(16, 11, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.body(self.table(ids)))


@pytest.mark.thorough
@pytest.mark.parametrize("made", [Tied, Tied()], ids=["function", "module"])
def test_a_race_that_unties_races_the_untied_baseline(made: Any) -> None:
    ids = torch.arange(64) % 11
    given: dict[str, Any] = {
        "data": (ids, (ids + 1) % 11), "loss": F.cross_entropy, "seconds": 1e4, "seeds": 2,
        "steps": 2, "rates": (0.01,), "optimiser": "sgd", "estimator": "analytic",
        "scope": "network", "members": 2,
    }  # fmt: skip
    tied, untied = (cerewrite.race(made, untie=untie, **given) for untie in (False, True))
    params = sum(parameter.numel() for parameter in Tied().parameters())
    assert tied.race.entrants[0].params == params
    assert untied.race.entrants[0].params == params + 11 * 16
