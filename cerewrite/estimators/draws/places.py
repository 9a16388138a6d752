"""What is known of units and of the places where they pass (`cerewrite.estimators.draws.units`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cerewrite.estimators.draws.logits import Rows

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Place:
    """Where units pass a module.

    Attributes:
        module: qualified name of the module.
        axis: channel axis of its first input (of its output, for a write); -1 for the last.
        ids: unit of each element along the axis; -1 for what is not followed.
        inner: elements per unit, next to each other (above 1 after a flatten).
        groups: members that the units lie in, one after another.
        centred: whether a norm subtracts a mean that its units share.
    """

    module: str
    axis: int
    ids: Ids
    inner: int = 1
    groups: int = 1
    centred: bool = False


@dataclass(slots=True)
class Units:
    """Units by width class, and the places where they pass.

    Attributes:
        classes: first unit and number of units of each class.
        writers: names of the layers that write each class.
        reads: inputs of sampled layers.
        norms: norms that divide by an example's own energy.
        own: weights of depthwise convolutions, whose rows are units' own.
        writes: outputs of layers whose class no layer reads, but a contraction does.
        refused: layers whose units pass no gate, with the reason.
        groups: members that the units of a class belong to, where its layers have groups.
        turned: modules whose weight is ``[in, out]``.
        loose: modules whose units are not followed to what reads them: gated where written.
        across: modules over positions or of logits, without units, with the class they write.
        logits: channels of such modules that make logits, where others do not.
    """

    classes: dict[str, tuple[int, int]] = field(default_factory=dict)
    writers: dict[str, list[str]] = field(default_factory=dict)
    reads: list[Place] = field(default_factory=list)
    norms: list[Place] = field(default_factory=list)
    writes: list[Place] = field(default_factory=list)
    own: list[Place] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    turned: set[str] = field(default_factory=set)
    loose: set[str] = field(default_factory=set)
    across: dict[str, str] = field(default_factory=dict)
    logits: dict[str, Rows] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """All units."""
        return sum(size for _, size in self.classes.values())
