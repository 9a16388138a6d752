"""What verbs with short answers write as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.measured import LayerEstimate, RegionEstimate
from cerewrite.ir.outcomes import Rejection


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `cerewrite explain` knows about one layer.

    Attributes:
        model: class name of the model.
        name: the layer, module, width class or region that was asked about.
        layer: its estimate; null if it is no layer, or nothing could be estimated.
        regions: the regions that it lies in.
        rejections: what was refused about it or the widths that it reads and writes.
        refused: why the model has no estimate; "" if it has.
    """

    model: str
    name: str
    layer: LayerEstimate | None
    regions: tuple[RegionEstimate, ...]
    rejections: tuple[Rejection, ...]
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """One option that a preset sets.

    Attributes:
        option: its long flag without dashes.
        value: what it is set to, as the command line takes it.
        why: the reason.
    """

    option: str
    value: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Registered:
    """One registered thing, as `cerewrite list` shows it.

    Attributes:
        kind: of which registry, in the plural: ``estimators``.
        name: under which name.
        text: what it is, in one line.
        settings: of a preset, what it sets.
    """

    kind: str
    name: str
    text: str
    settings: tuple[Setting, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A file that a verb wrote.

    Attributes:
        path: where.
        size: bytes.
    """

    path: str
    size: int
