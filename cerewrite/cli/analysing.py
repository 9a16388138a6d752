"""Options of an analysis."""

from __future__ import annotations

import click

from cerewrite.cli.numbers import Positive
from cerewrite.cli.options import choice, number, switch, text, together

ANALYSIS_NAMES = (
    "estimator", "parametrization", "gain", "scope", "draws", "seconds", "precision", "readout",
    "norms", "untie",
)  # fmt: skip


SECONDS = click.option(
    "--seconds",
    type=float,
    metavar="S",
    help="Time limit of the auto estimator's draws; --draws overrides it.  [default: 20]",
)

_FIRST = together(
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
        "fan_in * Var[weight] to assume: as-built, nonzero, he, or a number.",
        default="as-built",
    ),
    choice(
        "--scope",
        ("block", "stage", "network", "auto"),
        "How far a region may reach; auto compares the three.",
        default="block",
    ),
    switch(
        "--untie",
        description="Give tied parameters and modules values of their own; they are counted.",
    ),
    number("--draws", "Initialisations that a measuring estimator draws.  [default: its own]"),
    stage="Analysis",
)

_LAST = together(
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
    stage="Analysis",
)

ANALYSIS = together(_FIRST, SECONDS, _LAST, stage="Analysis")

UNTIMED = together(_FIRST, _LAST, stage="Analysis")
"""An analysis's options without its time limit."""
