"""The options of the verbs that hand them on, and the refusal of those that no verb takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Literal, TypedDict

from cerewrite.errors import UnknownOptionError
from cerewrite.registry import suggest

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import torch
    from torch import nn

    from cerewrite.exporter.inputs import DynamicAxes
    from cerewrite.initialisers import Custom
    from cerewrite.planning.budgets import Allowed, BudgetLike
    from cerewrite.planning.fixing import DesignLike


class _EstimateOptions(TypedDict, total=False):
    """What `cerewrite.analyze` and `cerewrite.race` take alike."""

    untie: bool
    estimator: str
    parametrization: str
    gain: str | float
    scope: str
    draws: int | None
    precision: float | None
    readout: str
    norms: Literal["train", "eval"]


class AnalysisOptions(_EstimateOptions, total=False):
    """Options of `cerewrite.analyze`, with the defaults of `cerewrite.analysis.analyze`."""

    seed: int
    seconds: float | None
    redraw: Callable[[nn.Module, torch.Generator], None] | None
    executor: Executor | None
    progress: Callable[[int, int, float], None] | None


class PlanOptions(TypedDict, total=False):
    """Options of `cerewrite.plan`, with the defaults of `cerewrite.planning.make_plan`."""

    budget: BudgetLike
    allow: Allowed
    objective: Literal["primal", "dual"]
    measure: str
    include: Sequence[str]
    exclude: Sequence[str]
    min_width: int | None
    max_multiplicity: int | None
    channel_multiple: int
    widths: Literal["proportional", "free"]
    min_gain: float
    uniform: bool
    fixed: Mapping[str, DesignLike]
    keep_groups: bool
    seed: int
    init: str | Custom
    exit_scale: str | None
    weights: str
    members: int | str | None


class ConvertOptions(AnalysisOptions, PlanOptions, total=False):
    """Options of `cerewrite.convert`: those of `analyze` and of `plan`."""


class RaceOptions(_EstimateOptions, PlanOptions, total=False):
    """Options of `cerewrite.race`: those of `plan`, and those of `analyze` but its time limit."""


class BenchOptions(TypedDict, total=False):
    """Options of `cerewrite.bench`, with the defaults of `cerewrite.timing.bench`."""

    engines: Sequence[str]
    batches: Sequence[int]
    thread_counts: Sequence[int | None]
    runs: int


class ExportOptions(TypedDict, total=False):
    """Options of `cerewrite.export_onnx`, with the defaults of `cerewrite.exporter.export_onnx`."""

    opset: int
    batches: Sequence[int]
    seed: int
    limit: float | None
    external_data: bool | None
    metadata: Mapping[str, str] | None
    dynamic_axes: DynamicAxes | None
    float16: bool
    members: str | None


def check_options(verb: Callable[..., object], given: Iterable[str], kind: type) -> None:
    """Refuse an option that a verb does not take, and name the nearest one that it does.

    Args:
        verb: the verb; its own keyword arguments are options too.
        given: names of the options it was given.
        kind: the typed dict of the options that it hands on.

    Raises:
        UnknownOptionError: if one of them is not known.

    Example:
        >>> from cerewrite import plan
        >>> check_options(plan, ["budget", "scope"], PlanOptions)
    """
    own = signature(verb).parameters.values()
    known = {item.name for item in own if item.kind is Parameter.KEYWORD_ONLY}
    known |= kind.__annotations__.keys()
    for name in given:
        if name not in known:
            raise UnknownOptionError(
                f"{verb.__name__}() got an unexpected keyword argument '{name}'",
                advice=suggest(name, dict.fromkeys(known)),
            )
