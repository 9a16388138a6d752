"""Training a lane in parts is training it at once; what goes wrong says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import TrainingError, UsageError
from cerewrite.training.racing.data import read_data
from cerewrite.training.racing.fresh import fresh
from cerewrite.training.racing.lanes import Task, Trainer, check_task, find_optimiser, judged
from cerewrite.training.racing.records import NAME, Records
from cerewrite.training.racing.schedule import Job, Lane, Point


def build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
    )


def task(optimiser: str = "adamw", loss: Callable[..., Any] | None = None) -> Task:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(120, 4, generator=draw)
    data = read_data((x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()), batch=8)
    return Task(data, loss or nn.functional.cross_entropy, find_optimiser(optimiser)[0])


def trainer(folder: Path, made: Task | None = None) -> Trainer:
    records = Records(folder)
    return Trainer({"net": build}, made or task(), records.state_of, {"race": "test"})


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_a_run_in_parts_is_the_whole_run(tmp_path: Path, optimiser: str) -> None:
    """With dropout and batch norm, across an epoch's end, and with a new process for each part."""
    lane, made = Lane("net", 0.01, 3), task(optimiser)
    whole, _ = trainer(tmp_path / "one", made).advance(Job(lane, 30, True))
    for steps in (4, 17, 29):
        trainer(tmp_path / "two", made).advance(Job(lane, steps, True))
    parted, _ = trainer(tmp_path / "two", made).advance(Job(lane, 30, True))
    assert parted.loss == whole.loss and parted.metric == whole.metric
    assert parted.train is not None and math.isfinite(parted.train)


def test_a_kill_between_state_and_record_costs_nothing(tmp_path: Path) -> None:
    lane = Lane("net", 0.01, 3)
    one, _ = trainer(tmp_path).advance(Job(lane, 12, True))
    assert trainer(tmp_path).advance(Job(lane, 12, True))[0] == one


def test_training_is_torchs_own(tmp_path: Path) -> None:
    made, lane = task("sgd"), Lane("net", 0.05, 1)
    net = build(1).train()
    optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    for step, (x, y) in enumerate(made.data.stream(1, 0)):
        if step == 15:
            break
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    point, _ = trainer(tmp_path, made).advance(Job(lane, 15, True))
    assert (point.loss, point.metric) == judged(net, made)


def test_what_diverges_is_a_point_that_says_so(tmp_path: Path) -> None:
    def exploding(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.square().square().sum() * 1e6

    point, _ = trainer(tmp_path, task("sgd", exploding)).advance(Job(Lane("net", 1.0, 0), 40, True))
    assert point == Point(None, failed=True)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda y, t: y, r"a tensor of shape \(8, 3\), not a scalar"),
        (lambda y, t: 3.0, "of type float, not a scalar"),
        (lambda y, t: y.missing, "the loss raises .*AttributeError.*test_lanes.py"),
        (lambda y, t: (y * math.nan).sum(), "the loss is nan on the first batch"),
        (lambda y, t: torch.ones(()), "does not depend on the model"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(loss: Callable[..., Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        check_task(build(0), task(loss=loss))


def test_data_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"the model raises on a batch .*shapes cannot be"):
        check_task(nn.Linear(5, 3), task())


def test_an_unknown_optimiser_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown optimiser 'adamv'") as caught:
        find_optimiser("adamv")
    assert "adamw" in caught.value.advice


def test_a_modules_fresh_weights_keep_their_values_and_leave_it_alone() -> None:
    net = build(0)
    before = [p.clone() for p in net.parameters()]
    one, two, again = fresh(net, 1), fresh(net, 2), fresh(net, 1)
    for old, p, a, b, c in zip(
        before, *(m.parameters() for m in (net, one, two, again)), strict=True
    ):
        assert torch.equal(old, p) and torch.equal(a, c)
        assert torch.equal(a.flatten().sort().values, old.flatten().sort().values)
        constant = bool((old == old.flatten()[0]).all())
        assert old.numel() < 16 or torch.equal(a, b) == constant
    with pytest.raises(UsageError, match="gives an object of type int"):
        fresh(lambda: 3, 0)  # type: ignore[arg-type, return-value]


def test_records_are_read_back_and_a_torn_line_is_done_again(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.begin({"identity": {"seed": 0}})
    lane, point = Lane("1.25x", 3e-4, 100), Point(0.5, 0.6, None)
    records.add(lane, 10, point, 1.5)
    file = tmp_path / NAME
    whole = file.read_text()
    file.write_text(whole + '{"kind": "poi')
    again = Records(tmp_path)
    assert again.points == {(lane, 10): point} and again.spent == 1.5
    assert file.read_text() == whole
    with pytest.raises(TrainingError, match="another race: seed differ"):
        again.require({"seed": 1})


@pytest.mark.parametrize("line", ["[]", "3", '{"kind": "point"}', "no JSON", '{"kind": "race"}'])
def test_records_of_something_else_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / NAME).write_text(line + "\n")
    with pytest.raises(TrainingError, match="line 1 is no record of a race"):
        Records(tmp_path)


def test_states_of_lanes_that_are_out_are_deleted(tmp_path: Path) -> None:
    records, lanes = Records(tmp_path), [Lane("net", 0.01, s) for s in range(3)]
    for lane in lanes:
        trainer(tmp_path).advance(Job(lane, 1, False))
    records.keep_states(lanes[:1])
    assert [file.name for file in tmp_path.glob("*.safetensors")] == [
        records.state_of(lanes[0]).name
    ]
