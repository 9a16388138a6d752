"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.core import ParameterSource

from cerewrite.cli.numbers import Positive, Whole
from cerewrite.frontend.loading import InputShape, parse_input_shape
from cerewrite.initialisers import INITIALISERS
from cerewrite.ir import EXIT_SCALES, LARGEST_COST, LARGEST_SEED, LARGEST_SIZE, WEIGHT_SOURCES
from cerewrite.planning.budgets import BudgetRequest, read_allowances, read_requests
from cerewrite.planning.make import MIN_GAIN
from cerewrite.planning.measures import DEFAULT, MEASURES
from cerewrite.planning.problem import WIDTHS
from cerewrite.runtime.alone import MOST_THREADS

Command = Callable[..., object]
Given = dict[str, Any]
"""Options as click hands them to a command."""
Decorator = Callable[[Command], Command]


def _shapes(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[InputShape, ...]:
    return tuple(parse_input_shape(value) for value in values)


def read_budgets(
    ctx: click.Context, parameter: click.Parameter, value: str | tuple[str, ...]
) -> tuple[BudgetRequest, ...]:
    """Budgets as requests; a callback of options."""
    return read_requests(value)


def _allowances(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Costs that may rise, read once so that a wrong one is refused before any work."""
    read_allowances(value)
    return value


def _initialiser(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    return INITIALISERS[value].name


def _designs(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Designs by region; the last ``=`` divides, because names of modules may hold one."""
    held: dict[str, str] = {}
    for value in values:
        region, separator, design = value.rpartition("=")
        if not separator or not region:
            raise click.BadParameter(f"'{value}' is not REGION=MxW[,W...]")
        if region in held:
            raise click.BadParameter(f"region '{region}' is fixed twice")
        held[region] = design
    return held


def _members(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A number of members; they reach from input to output unless another scope was asked for."""
    if value is None:
        return None
    from cerewrite.planning.members import parse_members

    return parse_members(value)


def take_scope(options: Given) -> None:
    """Members that can be asked reach from input to output, unless another scope was asked for."""
    source = click.get_current_context().get_parameter_source("scope")
    if options.get("members") is not None and source is ParameterSource.DEFAULT:
        options["scope"] = "network"


def together(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, listed in this order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def choice(flag: str, choices: Iterable[str], description: str, *, default: str) -> Decorator:
    """An option with one of a few values."""
    return click.option(
        flag,
        type=click.Choice(list(choices)),
        default=default,
        show_default=True,
        help=description,
    )


def text(flag: str, metavar: str, description: str, *, default: str, **more: Any) -> Decorator:
    """An option with a word that is checked later, or by ``callback``."""
    return click.option(
        flag, default=default, show_default=True, metavar=metavar, help=description, **more
    )


def number(
    flag: str,
    description: str,
    *,
    default: int | None = None,
    least: int = 1,
    most: int = LARGEST_SIZE,
) -> Decorator:
    """An option with a whole number, ``least`` or more, and ``most`` at most."""
    return click.option(
        flag,
        type=Whole(least, most),
        default=default,
        show_default=default is not None,
        help=description,
    )


def repeatable(flag: str, name: str, metavar: str, description: str, **more: Any) -> Decorator:
    """An option that may be given several times."""
    return click.option(
        flag, name, multiple=True, metavar=metavar, help=f"{description} Repeatable.", **more
    )


def switch(*flags: str, description: str) -> Decorator:
    """An option without a value."""
    return click.option(*flags, is_flag=True, help=description)


def measure_option(description: str) -> Decorator:
    """``--measure NAME``."""
    return choice("--measure", MEASURES, description, default=DEFAULT)


RUN = together(
    number("--threads", "Threads that torch may use.", most=MOST_THREADS),
    switch("-q", "--quiet", description="Print nothing but errors."),
    switch("-v", "--verbose", description="Print every row, cut nothing."),
)

INPUT = together(
    repeatable(
        "--input",
        "shapes",
        "SHAPE",
        "Example input, batch first: 1,3,224,224 or 1,128:int64 or name=1,16; by default the "
        "model file's example_inputs().",
        callback=_shapes,
    ),
    click.option(
        "--seed",
        type=Whole(0, LARGEST_SEED),
        default=0,
        show_default=True,
        help="Seed of every draw.",
    ),
)

ANALYSIS_NAMES = (
    "estimator", "parametrization", "gain", "scope", "draws", "seconds", "precision", "readout",
    "norms",
)  # fmt: skip

ANALYSIS = together(
    text(
        "--estimator",
        "NAME",
        "How corrections are estimated; see `cerewrite list`.",
        default="auto",
    ),
    choice(
        "--parametrization",
        ("ntk", "standard"),
        "Scale-free, or as an optimiser sees the parameters.",
        default="ntk",
    ),
    text(
        "--gain",
        "GAIN",
        "fan_in * Var[weight] to assume: as-built, he, or a number.",
        default="as-built",
    ),
    choice(
        "--scope",
        ("block", "stage", "network", "auto"),
        "How far a region may reach; auto compares the three.",
        default="block",
    ),
    number("--draws", "Initialisations that a measuring estimator draws.  [default: its own]"),
    click.option(
        "--seconds",
        type=float,
        metavar="S",
        help="Time limit of the auto estimator's draws; --draws overrides it.  [default: 20]",
    ),
    click.option(
        "--precision",
        type=Positive(),
        help="Relative standard error of nu at which Monte-Carlo stops.",
    ),
    click.option(
        "--readout",
        default="",
        metavar="OUTPUT",
        help="Output, channel or both that nu is read at: logits, :3, logits:3.",
    ),
    choice(
        "--norms",
        ("train", "eval"),
        "Batch norms on the batch's or on the running statistics.",
        default="train",
    ),
)

PLAN = together(
    repeatable(
        "--budget",
        "budget",
        "BUDGET",
        "params, params=0.5x, params=10M, flops=1.2G, latency=5ms, memory=2GB; all must hold.",
        default=("params",),
        show_default=True,
        callback=read_budgets,
    ),
    number("--latency-batch", "Examples per call of a latency budget.  [default: 1]"),
    repeatable(
        "--allow",
        "allow",
        "COST",
        "What may exceed the original's: all, step, memory, flops=2x; every cost that no budget "
        "names is held.",
        callback=_allowances,
    ),
    click.option(
        "--pick",
        metavar="ROW",
        help="A row of the menu instead of --allow: held, 1.25x, 1.5x, 2x, params-only.",
    ),
    click.option(
        "--profile",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="Times of training steps that `cerewrite profile` wrote.",
    ),
    number("--memory-batch", "Training batch whose memory is counted.  [default: 32]"),
    number("--step-batch", "Training batch of the steps that are timed.  [default: as above]"),
    choice(
        "--objective",
        ("primal", "dual"),
        "Least measure within the budget, or least cost at an equal one.",
        default="primal",
    ),
    measure_option("What is made small."),
    repeatable(
        "--include",
        "include",
        "RULE",
        "Split only what matches: a glob, re:REGEX or type:CLASS.",
    ),
    repeatable("--exclude", "exclude", "RULE", "Leave what matches as it is."),
    number(
        "--min-width",
        "Least width of a member.  [default: 4, or the original's where that is less]",
    ),
    number("--max-multiplicity", "Most members."),
    number("--channel-multiple", "Member widths are multiples of it.", default=1),
    choice(
        "--widths",
        WIDTHS,
        "One scale of the original's widths per member, or every class on its own, which "
        "extrapolates the measures.",
        default="proportional",
    ),
    click.option(
        "--min-gain",
        type=click.FloatRange(0.0, 1.0, max_open=True),
        default=MIN_GAIN,
        show_default=True,
        help="Least share by which a split makes its region's measure smaller.",
    ),
    switch("--uniform", description="One multiplicity and one scale for all regions."),
    repeatable(
        "--fix",
        "fixed",
        "REGION=MxW[,W...]",
        "Hold one region's design: layer1.0=4x16, 0=8x12,24.",
        callback=_designs,
    ),
    switch("--keep-groups", description="Leave regions that are grouped already."),
    click.option(
        "--members",
        metavar="M",
        callback=_members,
        help="So many members that can be asked one by one, or auto: one ensemble from input to "
        "output, at most the original's parameters and FLOPs.",
    ),
)

DRAWING = together(
    text(
        "--init",
        "NAME",
        "How the members' weights are drawn: gain, reset, he, orthogonal.",
        default="gain",
        callback=_initialiser,
    ),
    click.option(
        "--exit-scale",
        type=click.Choice(EXIT_SCALES),
        help="1/sqrt(m) of the members' sum in the exits' weights, or as a multiplier; or their "
        "mean, 1/m.  [default: folded; mean with --members]",
    ),
    choice(
        "--weights",
        WEIGHT_SOURCES,
        "Draw the members' weights, or carry the original's into them.",
        default="reinitialise",
    ),
)

CALIBRATION = click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="A batch of inputs, .npy or .npz, to fit transferred weights on.",
)

BENCH_NAMES = ("engines", "batches", "runs")

BENCH = together(
    repeatable(
        "--engine",
        "engines",
        "ENGINE",
        "What runs the models: eager, compile, onnxruntime; step for training steps.",
        type=click.Choice(["eager", "compile", "onnxruntime", "step"]),
        default=("eager", "onnxruntime", "step"),
        show_default=True,
    ),
    repeatable(
        "--batch",
        "batches",
        "N",
        "Examples per call.",
        type=Whole(1),
        default=(1, 16),
        show_default=True,
    ),
    number("--runs", "Interleaved runs behind each median.", default=15, least=5),
)

MAX_PARAMS = click.option(
    "--max-params",
    type=Whole(1, LARGEST_COST),
    help="Most parameters that a plan may build.  [default: 4 times the original's]",
)

OPENING = together(
    click.option(
        "--model", metavar="MODEL", help="The original, for a folder whose factory is not run."
    ),
    switch("--trust", description="Run the folder's model_ce.py to build the original."),
    MAX_PARAMS,
)
"""How a folder that may be someone else's is opened."""

FORCE = switch("--force", description="Replace what an earlier run wrote.")


def folder_option(*, required: bool) -> Decorator:
    """``--out DIR``."""
    return click.option(
        "--out", required=required, type=click.Path(), metavar="DIR", help="Folder to write."
    )


def file_option(flag: str, description: str) -> Decorator:
    """An option that names a file to write; ``-`` is standard output where text is written."""
    return click.option(flag, type=click.Path(), metavar="FILE", help=description)
