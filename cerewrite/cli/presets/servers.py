"""For a model that answers requests."""

from cerewrite.cli.presets.base import Preset, register

register(
    Preset(
        "servers",
        "answer requests: no call slower, channels that kernels like",
        (
            ("budget", ["params", "latency=1.0x"], "a call takes no longer than the original's"),
            ("latency-batch", 1, "one request at a time"),
            ("allow", ["step", "memory"], "training is done once, serving every day"),
            ("min-width", 8, "grouped kernels lose most of their speed below 8 channels"),
            ("channel-multiple", 8, "widths that vector units and tensor cores fill"),
            ("bench", True, "time both models afterwards"),
            ("engine", ["eager", "onnxruntime"], "what servers run"),
        ),
    )
)
