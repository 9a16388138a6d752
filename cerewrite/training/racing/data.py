"""The data of a race: batches that depend on seed and step alone, and a part that is held out."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from cerewrite.errors import TrainingError, UsageError, first_line, own_line
from cerewrite.runtime.alone import alone

Batch = tuple[Any, Any]
"""Inputs (a tensor, a tuple of positional or a dict of keyword ones) and targets."""

HELD_OUT = 5
"""One example, or one batch, of so many is held out where no test data are given."""

LARGE = 256
"""Examples that are judged at once, at least."""

ACCEPTED = "give (inputs, targets) as tensors, or a list or DataLoader of batches (inputs, targets)"


@dataclass(frozen=True, slots=True)
class Examples:
    """A data set as tensors, batch first, from which batches are drawn without replacement.

    Attributes:
        inputs: a tensor, a tuple or a dict of them.
        targets: ``[examples, ...]``, or a tree of such.
        batch: examples per step.
    """

    inputs: Any
    targets: Any
    batch: int

    def __len__(self) -> int:
        """Number of examples."""
        return len(pytree.tree_leaves(self.targets)[0])

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Batches of one pass; the last one is left out if it is not full."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        size = min(self.batch, len(self))
        for start in range(0, len(self) - size + 1, size):
            yield self.at(order[start : start + size])

    def at(self, index: Tensor) -> Batch:
        """The examples at these places."""
        taken: Batch = pytree.tree_map_only(
            Tensor, lambda tensor: tensor[index.to(tensor.device)], (self.inputs, self.targets)
        )
        return taken

    def whole(self, least: int = LARGE) -> list[Batch]:
        """All examples in order, in batches of at least so many."""
        size = max(self.batch, least)
        return [self.at(index) for index in torch.split(torch.arange(len(self)), size)]


@dataclass(frozen=True, slots=True)
class Batches:
    """Batches as the user makes them: a list, whose order is drawn, or what draws by itself.

    Attributes:
        source: iterated anew for every epoch, under a seed of its own.
    """

    source: Iterable[Any]

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Batches of one pass."""
        if isinstance(self.source, Sequence):
            generator = torch.Generator().manual_seed(seed)
            for index in torch.randperm(len(self.source), generator=generator).tolist():
                yield as_batch(self.source[index])
        else:
            yield from map(as_batch, self.source)


@dataclass(frozen=True, slots=True)
class Data:
    """What a race trains on, and what it is judged on.

    Attributes:
        train: the batches of training.
        test: the held-out batches.
        said: how the held-out part came about.
    """

    train: Examples | Batches
    test: tuple[Batch, ...]
    said: str

    def stream(self, seed: int, start: int) -> Iterator[Batch]:
        """Batches from step ``start`` on, for ever; the same however a run is divided.

        All global random states are seeded before every batch, so what a forward draws then (as
        dropout does) depends on seed and step alone too.
        """
        step, number = 0, 0
        while True:
            first = step
            _seed_all(seed, number, -1)
            batches = iter(self.train.epoch(_derived(seed, number, -1)))
            while True:
                _seed_all(seed, number, step - first)
                batch = next(batches, None)
                if batch is None:
                    break
                step += 1
                if step > start:
                    yield batch
            if step == first:
                again = "in a second pass; give a list or a DataLoader" if number else "at all"
                raise TrainingError(f"the data gave no batches {again}", advice=ACCEPTED)
            number += 1


def read_data(data: Any, test: Any = None, *, batch: int, seed: int = 0) -> Data:
    """Data of a race, as a user gives them.

    Args:
        data: a pair ``(inputs, targets)`` of whole tensors, or an iterable of such batches.
        test: the same; without it a fifth of the data is held out.
        batch: examples per step, where whole tensors are given.
        seed: of what is held out.

    Raises:
        TrainingError: if they are neither, or too few to hold some out.

    Example:
        >>> found = read_data((torch.zeros(10, 3), torch.zeros(10)), batch=4)
        >>> len(found.train), [tuple(x.shape) for x, _ in found.test]
        (8, [(2, 3)])
    """
    if test is not None:
        judged = _read(test, batch)
        with alone():
            _seed_all(seed)
            held = judged.whole() if isinstance(judged, Examples) else [*judged.epoch(seed)]
        if not held:
            raise TrainingError("the test data are empty", advice=ACCEPTED)
        return Data(_read(data, batch), tuple(held), "the test data that were given")
    found = _read(data, batch)
    if isinstance(found, Examples):
        count = len(found) // HELD_OUT
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
        _require(count, f"{len(found)} examples")
        rest = Examples(*found.at(order[count:].sort().values), batch)
        judged = Examples(*found.at(order[:count].sort().values), batch)
        return Data(rest, tuple(judged.whole()), f"{count:,} of {len(found):,} examples")
    with alone():
        _seed_all(seed)
        kept = [*found.epoch(seed)]
    _require(len(kept) // 2, f"{len(kept)} batches")
    judged_batches = tuple(kept[::HELD_OUT])
    rest_batches = [item for index, item in enumerate(kept) if index % HELD_OUT]
    return Data(Batches(rest_batches), judged_batches, f"one batch of {HELD_OUT}")


def as_batch(item: Any) -> Batch:
    """A batch as inputs and targets.

    Raises:
        TrainingError: if it is no pair.
    """
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2:
        return item[0], item[1]
    raise TrainingError(
        f"a batch of the data is a {type(item).__name__}, not (inputs, targets)", advice=ACCEPTED
    )


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs of a model."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def moved(tree: Any, device: torch.device) -> Any:
    """All tensors of a tree on a device."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), tree)


def digest(data: Data) -> str:
    """Tells data sets apart: the held-out batches, and the first of training."""
    found = hashlib.sha256()
    for leaf in pytree.tree_leaves((*data.test, next(data.stream(0, 0)))):
        if isinstance(leaf, Tensor):
            flat = leaf.detach().cpu().contiguous().flatten().view(torch.uint8)
            found.update(repr((leaf.shape, leaf.dtype)).encode() + flat.numpy().tobytes())
    return found.hexdigest()


def _read(data: Any, batch: int) -> Examples | Batches:
    if batch < 1:
        raise UsageError(f"batches of {batch} examples", advice="give 1 or more")
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor):
        sizes = {len(x) if x.dim() else 0 for x in pytree.tree_leaves(data) if _tensor(x)}
        if len(sizes) > 1 or 0 in sizes:
            shapes = [tuple(x.shape) for x in pytree.tree_leaves(data) if _tensor(x)]
            raise TrainingError(
                f"inputs and targets of {shapes} are not one example per row", advice=ACCEPTED
            )
        return Examples(data[0], data[1], batch)
    if isinstance(data, Iterator) or not isinstance(data, Iterable):
        what = "gives its batches once only" if isinstance(data, Iterator) else "is no data"
        raise TrainingError(f"a {type(data).__name__} {what}", advice=ACCEPTED)
    return Batches(data)


def _tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _require(held: int, what: str) -> None:
    if held < 1:
        raise TrainingError(f"{what} are too few to hold some out", advice="give test data too")


def _derived(*parts: int) -> int:
    text = ":".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def _seed_all(*parts: int) -> None:
    number = _derived(*parts)
    torch.manual_seed(number)
    random.seed(number)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(number % (1 << 32))


def user_failure(what: str, error: Exception) -> TrainingError:
    """A user's exception as a typed error, with the line of their code that raised it."""
    return TrainingError(
        f"{what}: {first_line(error)}{own_line(error)}", advice="mend that, then run again"
    )
