"""What a user may choose between, and times that another machine measured."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.profile import Profile
from cerewrite.ir.ranges import (
    Amount,
    ClassName,
    Cost,
    Hexadecimal,
    Index,
    Members,
    Scope,
    Size,
    Text,
)


@dataclass(frozen=True, slots=True)
class MenuRow:
    """One plan of the front between a measure and the time of a training step, as forecast.

    Attributes:
        name: as ``--pick`` takes it.
        option: the option of `cerewrite plan` and `convert` that gives it.
        splits: regions that change.
        measure: the plan's measure over the original's.
        step: the training step's time over the original's; None where it was not timed.
        memory: training memory over the original's; None where it was not counted.
        params: parameters over the original's.
        flops: FLOPs over the original's.
        chosen: whether it is the plan that is made.
        refused: why there is no such plan; "" where there is one.
        designs: region, members and widths of every split.
    """

    name: Text
    option: Text
    splits: Index
    measure: Amount
    step: Amount | None
    memory: Amount | None
    params: Amount
    flops: Amount
    chosen: bool = False
    refused: Text = ""
    designs: tuple[tuple[Text, Members, tuple[Size, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class RegionTimes:
    """The times of one region, with what tells it from others.

    Attributes:
        scope: the scope it was found at.
        name: name of the region.
        sizes: channels of its width classes.
        profile: the times.
    """

    scope: Scope
    name: Text
    sizes: tuple[Size, ...]
    profile: Profile


@dataclass(frozen=True, slots=True)
class StepProfile:
    """What `cerewrite profile` writes: training steps of one model as one machine ran them.

    Attributes:
        model: class name of the model.
        fingerprint: hash of the model's structure.
        step: nanoseconds of the whole model's training step.
        regions: the times of every region.
        schema: version of this record.
    """

    model: ClassName
    fingerprint: Hexadecimal
    step: Cost
    regions: tuple[RegionTimes, ...]
    schema: int = 1
