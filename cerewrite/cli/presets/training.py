"""For a model that is trained here and now."""

from cerewrite.cli.presets.base import Preset, register

register(
    Preset(
        "training",
        "train here: no step slower, channels that kernels like",
        (
            ("budget", ["params", "step=1.0x"], "the time of a step is a budget, not only held"),
            ("scope", "auto", "plan block, stage and network scope, keep the best"),
            ("min-width", 8, "grouped kernels lose most of their speed below 8 channels"),
            ("channel-multiple", 8, "widths that vector units and tensor cores fill"),
            ("bench", True, "time training steps of both models afterwards"),
            ("engine", ["step"], "only training steps"),
            ("batch", [32], "at the batch at which steps are held"),
        ),
    )
)
