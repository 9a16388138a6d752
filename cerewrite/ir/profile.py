"""What a region takes in time and memory: numbers that a plan can be made with."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.ranges import Index, Size, Spread, Text


@dataclass(frozen=True, slots=True)
class BlockTimes:
    """Times of interior layers that read one class and write another, by member width.

    Attributes:
        source: index of the class read.
        target: index of the class written.
        widths: member widths that were measured, ascending.
        nanoseconds: time per member at each of them, all these layers together.
    """

    source: Index
    target: Index
    widths: tuple[Size, ...]
    nanoseconds: tuple[Spread, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A region's latency as ``m * (linear . n + sum of block times at n)``.

    Attributes:
        batch: examples per call.
        threads: threads that were used.
        machine: what was measured, for messages.
        linear: nanoseconds per channel of each class: entries, exits, norms, activations.
        blocks: the interior layers.
    """

    batch: Size
    threads: Size
    machine: Text
    linear: tuple[Spread, ...]
    blocks: tuple[BlockTimes, ...]


@dataclass(frozen=True, slots=True)
class SavedActivations:
    """What a region keeps of its forward pass until the backward pass.

    Attributes:
        batch: examples per training step.
        item: bytes of one element, of parameters and activations alike.
        per_channel: bytes per example and channel, per class of the region.
        per_member: bytes per example and member: statistics of norms over the channels.
        spared: bytes per example that the original design holds less than the rest says: a
            weighted layer norm keeps one tensor less than the norm that takes its place.
    """

    batch: Size
    item: Size
    per_channel: tuple[Index, ...]
    per_member: Index = 0
    spared: Index = 0
