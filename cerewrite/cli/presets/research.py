"""For figures that others can make again."""

from cerewrite.cli.presets.base import Preset, register

register(
    Preset(
        "research",
        "compare at equal parameters by the paper's measure, no clock",
        (
            ("budget", ["params"], "equal parameters, as in arXiv:2006.07678"),
            ("allow", ["all"], "time and memory limit nothing, so no clock decides"),
            ("measure", "nu", "the paper's measure; every figure states all of them"),
            ("draws", 512, "a number of draws instead of a time limit: the same everywhere"),
            ("min-gain", 0.0, "a split that gains little is kept too"),
        ),
    )
)
