"""What a race trains on: every step's batch follows from seed and step alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from cerewrite.errors import TrainingError, UsageError
from cerewrite.training.racing.data import Data, digest, read_data


def tensors(count: int = 50) -> tuple[Tensor, Tensor]:
    x = torch.arange(3.0 * count).view(count, 3)
    return x, torch.arange(count)


def sources() -> dict[str, Data]:
    x, y = tensors()
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    return {
        "tensors": read_data((x, y), batch=8),
        "list": read_data([(a, b) for a, b in zip(x.split(5), y.split(5), strict=True)], batch=1),
        "loader": read_data(loader, test=(x, y), batch=8),
        "held-out loader": read_data(loader, batch=8),
    }


def taken(data: Data, seed: int, start: int, count: int) -> list[list[int]]:
    stream = itertools.islice(data.stream(seed, start), count)
    return [batch[1].tolist() for batch in stream]


@pytest.mark.parametrize("name", ["tensors", "list", "loader", "held-out loader"])
def test_a_stream_may_be_entered_anywhere(name: str) -> None:
    data = sources()[name]
    whole = taken(data, 7, 0, 20)
    for start in (1, 6, 13):
        torch.manual_seed(start)
        assert taken(data, 7, start, 20 - start) == whole[start:]
    assert taken(data, 8, 0, 20) != whole


def test_a_forward_draws_the_same_at_a_step() -> None:
    data = sources()["tensors"]
    drawn = [float(torch.rand(())) for _ in itertools.islice(data.stream(0, 0), 9)]
    later = [float(torch.rand(())) for _ in itertools.islice(data.stream(0, 4), 5)]
    assert later == drawn[4:] and len(set(drawn)) == 9


def test_nothing_that_is_held_out_is_trained_on() -> None:
    for data in (sources()[name] for name in ("tensors", "list", "held-out loader")):
        held = {y for _, targets in data.test for y in targets.tolist()}
        seen = {y for batch in taken(data, 0, 0, 12) for y in batch}
        assert held and not held & seen
        assert len(held) in (10, 14, 16)


def test_a_data_set_is_known_by_its_values() -> None:
    one, other = sources(), sources()
    assert {n: digest(d) for n, d in one.items()} == {n: digest(d) for n, d in other.items()}
    x, y = tensors()
    assert digest(read_data((x + 1, y), batch=8)) != digest(one["tensors"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch.zeros(0), "gave no batches|too few"),
        ([], "too few"),
        ((torch.zeros(5, 2), torch.zeros(4)), "not one example per row"),
        ((torch.zeros(3, 2), torch.zeros(3)), "3 examples are too few"),
        (iter([(1, 2)]), "once only"),
        (3, "is no data"),
        ([1, 2, 3], r"not \(inputs, targets\)"),
        (["ab"], r"not \(inputs, targets\)"),
    ],
)
def test_what_is_no_data_is_refused(data: Any, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        read_data(data, batch=4)


def test_an_empty_batch_and_empty_test_data_are_refused() -> None:
    with pytest.raises(UsageError, match="batches of 0"):
        read_data(tensors(), batch=0)
    with pytest.raises(TrainingError, match="test data are empty"):
        read_data(tensors(), test=[], batch=4)
