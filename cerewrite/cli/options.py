"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from cerewrite.initialisers import INITIALISERS
from cerewrite.ir import EXIT_SCALES, WEIGHT_SOURCES
from cerewrite.loader import InputShape, parse_input_shape
from cerewrite.measures import DEFAULT, MEASURES

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


def _shapes(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[InputShape, ...]:
    return tuple(parse_input_shape(value) for value in values)


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


def _all(decorators: Sequence[Decorator]) -> Decorator:
    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


RUN = _all(
    [
        click.option("--threads", type=click.IntRange(1), help="Threads that torch may use."),
        click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
        click.option("-v", "--verbose", is_flag=True, help="Print every row, cut nothing."),
    ]
)

INPUT = _all(
    [
        click.option(
            "--input",
            "shapes",
            multiple=True,
            metavar="SHAPE",
            callback=_shapes,
            help="Example input, batch first: 1,3,224,224 or 1,128:int64 or name=1,16. "
            "Repeatable. Default: the model file's example_inputs().",
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw."),
    ]
)

ANALYSIS_NAMES = (
    "estimator", "parametrization", "gain", "scope", "draws", "precision", "readout", "norms"
)  # fmt: skip

ANALYSIS = _all(
    [
        click.option(
            "--estimator",
            default="analytic",
            show_default=True,
            metavar="NAME",
            help="How corrections are estimated; see `cerewrite list`.",
        ),
        click.option(
            "--parametrization",
            type=click.Choice(["ntk", "standard"]),
            default="ntk",
            show_default=True,
            help="Scale-free, or as an optimiser sees the parameters.",
        ),
        click.option(
            "--gain",
            default="as-built",
            show_default=True,
            metavar="GAIN",
            help="fan_in * Var[weight] to assume: as-built, he, or a number.",
        ),
        click.option(
            "--scope",
            type=click.Choice(["block", "stage", "network", "auto"]),
            default="block",
            show_default=True,
            help="How far a region may reach; auto compares the three.",
        ),
        click.option(
            "--draws",
            type=click.IntRange(1),
            help="Initialisations that a measuring estimator draws.  [default: its own]",
        ),
        click.option(
            "--precision",
            type=click.FloatRange(0, min_open=True),
            help="Relative standard error of nu at which Monte-Carlo stops.",
        ),
        click.option(
            "--readout",
            default="",
            metavar="OUTPUT",
            help="Output, channel or both that nu is read at: logits, :3, logits:3.",
        ),
        click.option(
            "--norms",
            type=click.Choice(["train", "eval"]),
            default="train",
            show_default=True,
            help="Batch norms on the batch's or on the running statistics.",
        ),
    ]
)

PLAN = _all(
    [
        click.option(
            "--budget",
            multiple=True,
            default=("params",),
            show_default=True,
            metavar="BUDGET",
            help="params, params=0.5x, params=10M, flops=1.2G, latency=5ms, memory=2GB. "
            "Repeatable; all must hold.",
        ),
        click.option(
            "--latency-batch",
            type=click.IntRange(1),
            help="Examples per call of a latency budget.  [default: 1]",
        ),
        click.option(
            "--memory-batch",
            type=click.IntRange(1),
            help="Training batch of a memory budget.  [default: 32]",
        ),
        click.option(
            "--objective",
            type=click.Choice(["primal", "dual"]),
            default="primal",
            show_default=True,
            help="Least measure within the budget, or least cost at an equal one.",
        ),
        click.option(
            "--measure",
            type=click.Choice(list(MEASURES)),
            default=DEFAULT,
            show_default=True,
            help="What is made small.",
        ),
        click.option(
            "--include",
            multiple=True,
            metavar="RULE",
            help="Split only what matches: a glob, re:REGEX or type:CLASS. Repeatable.",
        ),
        click.option(
            "--exclude",
            multiple=True,
            metavar="RULE",
            help="Leave what matches as it is. Repeatable.",
        ),
        click.option(
            "--min-width",
            type=click.IntRange(1),
            help="Least width of a member.  [default: 4, or the original's where that is less]",
        ),
        click.option("--max-multiplicity", type=click.IntRange(1), help="Most members."),
        click.option(
            "--channel-multiple",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Member widths are multiples of it.",
        ),
        click.option(
            "--uniform", is_flag=True, help="One multiplicity and one scale for all regions."
        ),
        click.option(
            "--fix",
            "fixed",
            multiple=True,
            metavar="REGION=MxW[,W...]",
            callback=_designs,
            help="Hold one region's design: layer1.0=4x16, 0=8x12,24. Repeatable.",
        ),
        click.option("--keep-groups", is_flag=True, help="Leave regions that are grouped already."),
    ]
)


DRAWING = _all(
    [
        click.option(
            "--init",
            default="gain",
            show_default=True,
            metavar="NAME",
            callback=_initialiser,
            help="How the members' weights are drawn: gain, reset, he, orthogonal.",
        ),
        click.option(
            "--exit-scale",
            type=click.Choice(EXIT_SCALES),
            default="folded",
            show_default=True,
            help="1/sqrt(m) of the members' sum: in the exits' weights, or a multiplier.",
        ),
        click.option(
            "--weights",
            type=click.Choice(WEIGHT_SOURCES),
            default="reinitialise",
            show_default=True,
            help="Draw the members' weights, or carry the original's into them.",
        ),
    ]
)


CALIBRATION = click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="A batch of inputs, .npy or .npz, to fit transferred weights on.",
)


def folder_option(*, required: bool) -> Decorator:
    """``--out DIR``."""
    return click.option(
        "--out", required=required, type=click.Path(), metavar="DIR", help="Folder to write."
    )


def file_option(flag: str, description: str, *, required: bool = False) -> Decorator:
    """An option that names a file to write; ``-`` is standard output where text is written."""
    return click.option(
        flag, required=required, type=click.Path(), metavar="FILE", help=description
    )


def bench_options(*, switch: bool) -> Decorator:
    """What is timed; ``--bench`` where timing is optional."""
    options = [
        click.option(
            "--engine",
            "engines",
            multiple=True,
            type=click.Choice(["eager", "compile", "onnxruntime"]),
            default=("eager", "onnxruntime"),
            show_default=True,
            help="What runs the models. Repeatable.",
        ),
        click.option(
            "--batch",
            "batches",
            multiple=True,
            type=click.IntRange(1),
            default=(1, 16),
            show_default=True,
            help="Examples per call. Repeatable.",
        ),
        click.option(
            "--runs",
            type=click.IntRange(5),
            default=15,
            show_default=True,
            help="Interleaved runs behind each median.",
        ),
    ]
    flag = click.option("--bench", is_flag=True, help="Time both models; the report shows it.")
    return _all([flag, *options] if switch else options)


BENCH_NAMES = ("engines", "batches", "runs")

FORCE = click.option("--force", is_flag=True, help="Replace what an earlier run wrote.")
