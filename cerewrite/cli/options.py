"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from cerewrite.api.menu import PICKS
from cerewrite.cli.command import STAGE_OF
from cerewrite.cli.numbers import Whole
from cerewrite.cli.presets import PRESETS
from cerewrite.cli.reading import (
    read_allowed,
    read_budgets,
    read_designs,
    read_initialiser,
    read_members,
    read_shapes,
)
from cerewrite.ir import EXIT_SCALES, LARGEST_COST, LARGEST_SEED, LARGEST_SIZE, WEIGHT_SOURCES
from cerewrite.planning.make import MIN_GAIN
from cerewrite.planning.measures import DEFAULT, MEASURES
from cerewrite.planning.problem import WIDTHS
from cerewrite.runtime.alone import MOST_THREADS

Command = Callable[..., object]
Decorator = Callable[[Command], Command]


def together(*decorators: Decorator, stage: str) -> Decorator:
    """Several options as one decorator, listed in this order under a stage's name."""

    def decorate(command: Command) -> Command:
        before = len(declared(command))
        for decorator in reversed(decorators):
            command = decorator(command)
        STAGE_OF.update((str(option.name), stage) for option in declared(command)[before:])
        return command

    return decorate


def declared(command: Command) -> list[click.Parameter]:
    """Options that a function has been decorated with so far."""
    found: list[click.Parameter] = getattr(command, "__click_params__", [])
    return found


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
    stage="Run",
)

INPUT = together(
    repeatable(
        "--input",
        "shapes",
        "SHAPE",
        "Example input, batch first: 1,3,224,224 or 1,128:int64 or name=1,16; by default the "
        "model file's example_inputs().",
        callback=read_shapes,
    ),
    click.option(
        "--seed",
        type=Whole(0, LARGEST_SEED),
        default=0,
        show_default=True,
        help="Seed of every draw.",
    ),
    stage="Model",
)

PRESET = click.option(
    "--for",
    "preset",
    type=click.Choice(list(PRESETS)),
    expose_value=False,
    help="Defaults for a purpose; `cerewrite list presets` shows them. Options given win.",
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
        callback=read_allowed,
    ),
    click.option("--pick", type=click.Choice(PICKS), help="A row of the menu, instead of --allow."),
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
        callback=read_designs,
    ),
    switch("--keep-groups", description="Leave regions that are grouped already."),
    click.option(
        "--members",
        metavar="M",
        callback=read_members,
        help="So many members that can be asked one by one, or auto: one ensemble from input to "
        "output, at most the original's parameters and FLOPs.",
    ),
    PRESET,
    stage="Plan",
)

DRAWING = together(
    text(
        "--init",
        "NAME",
        "How the members' weights are drawn: gain, reset, he, orthogonal.",
        default="gain",
        callback=read_initialiser,
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
    stage="Weights",
)

CALIBRATION = together(
    click.option(
        "--calibration",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="A batch of inputs, .npy or .npz, to fit transferred weights on.",
    ),
    stage="Weights",
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
    stage="Timing",
)

MAX_PARAMS = together(
    click.option(
        "--max-params",
        type=Whole(1, LARGEST_COST),
        help="Most parameters that a plan may build.  [default: 4 times the original's]",
    ),
    stage="Plan",
)

OPENING = together(
    click.option(
        "--model", metavar="MODEL", help="The original, for a folder whose factory is not run."
    ),
    switch("--trust", description="Run the folder's model_ce.py to build the original."),
    MAX_PARAMS,
    stage="Model",
)
"""How a folder that may be someone else's is opened."""
