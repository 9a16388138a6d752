"""What an initialiser is, and where initialisers are registered. Importing it needs no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cerewrite.errors import UsageError
from cerewrite.registry import Registry
from cerewrite.runtime.alone import alone

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Custom = Callable[["Tensor"], object]
"""Fills a weight ``[out, in / groups, *kernel]`` in place, as ``torch.nn.init`` does."""


@dataclass(frozen=True, slots=True)
class Original:
    """The layer that a member's layer is drawn after.

    Attributes:
        name: its qualified name.
        module: the original module.
        gain: ``fan_in * E[W^2]`` of its weights as they are (THEORY 1), at least 0.
        fan_in: its own fan-in.
    """

    name: str
    module: nn.Module
    gain: float
    fan_in: int


class Initialiser(ABC):
    """One way to draw the weights of a member's own narrow layer.

    The ``1 / sqrt(m)`` of the members' sum is not its business: who calls it folds that into an
    exit's weights, or leaves it to an explicit multiplier (THEORY 2).

    Attributes:
        name: registered name; what a plan records.
    """

    name: ClassVar[str]

    @abstractmethod
    def draw(self, weight: Tensor, original: Original, generator: torch.Generator) -> None:
        """Fill a member's weight in place.

        Args:
            weight: ``[out, in / groups, *kernel]``, float32 or float64, on the CPU.
            original: the layer it is drawn after.
            generator: the only source of randomness.
        """

    def draw_bias(self, bias: Tensor, original: Original, generator: torch.Generator) -> None:
        """Fill a bias in place: the original's constant, or its mean and deviation."""
        values = original.module.get_parameter("bias").detach().double()
        bias.fill_(float(values[0]))
        if not bool((values == values[0]).all()):
            spread = float(values.std(correction=0))
            bias.normal_(float(values.mean()), spread, generator=generator)


INITIALISERS: Registry[Initialiser] = Registry(
    "initialiser", "cerewrite.initialisers", "cerewrite.initialisers"
)


def register(kind: type[Initialiser]) -> type[Initialiser]:
    """Class decorator: make one instance of an initialiser known under its name."""
    INITIALISERS.register(kind.name, kind())
    return kind


def fan_in(weight: Tensor) -> int:
    """Weights per output element of ``[out, in / groups, *kernel]``."""
    return math.prod(weight.shape[1:])


@dataclass(frozen=True, slots=True)
class CustomInitialiser(Initialiser):
    """A user's function; it sees the seeded global random state, and no weight but its own."""

    function: Custom

    def draw(self, weight: Tensor, original: Original, generator: torch.Generator) -> None:
        """Let the function fill a member's weight in place."""
        with seeded_globally(generator):
            self.function(weight)


@contextmanager
def seeded_globally(generator: torch.Generator) -> Iterator[None]:
    """Seed torch's global CPU generator from ``generator``; its state is put back afterwards."""
    import torch

    with alone():
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def custom_name(function: Custom) -> str:
    """What a plan records of a user's function: ``module:qualified name``.

    Example:
        >>> custom_name(math.sqrt)
        'math:sqrt'
    """
    place = getattr(function, "__module__", None) or "unknown"
    return f"{place}:{getattr(function, '__qualname__', type(function).__qualname__)}"


def find_initialiser(recorded: str, given: str | Custom | None = None) -> Initialiser:
    """The initialiser that a plan records, or the one given in its place.

    Args:
        recorded: a registered name, or what `custom_name` returns.
        given: a registered name, or a function; it goes before what is recorded.

    Raises:
        UsageError: if no initialiser has that name, or the plan's function was not given.

    Example:
        >>> find_initialiser("gain").name
        'gain'
    """
    if given is not None and not isinstance(given, str):
        return CustomInitialiser(given)
    name = recorded if given is None else given
    if ":" in name:
        raise UsageError(
            f"the plan's weights are drawn by the function {name}, which a plan cannot hold",
            advice=f"give it: cerewrite.apply(plan, model, init={name.rpartition(':')[2]})",
        )
    return INITIALISERS[name]
