"""Channel shuffles and pixel shuffles: values stay, channels do not."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.ops.base import Channels, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import module_case
from cerewrite.ops.layout import Passing


@register
class Shuffle(Passing):
    """Bounds every region that it touches; moments pass, as every unit stays a unit.

    A channel shuffle exists to exchange channels between groups, which members must not do. A
    pixel shuffle turns runs of channels into positions and back.
    """

    name = "shuffle"
    targets = frozenset(
        {"channel_shuffle", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle"}
    )
    keeps = Saved()
    cases = (module_case(lambda: nn.PixelShuffle(2), (2, 8, 3, 3)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        found = inputs[0].channels
        if found is None:
            return None
        pixels = op.target.startswith("pixel")
        widths.pin(
            found.width,
            op.module or op.name,
            "pixel-shuffle" if pixels else "channel-shuffle",
            f"'{op.target}' turns channels into positions or back"
            if pixels
            else f"'{op.target}' exchanges channels between groups, and so between members",
            "keep this width; the layers before and behind it can still be split"
            if pixels
            else "keep this width, or leave the shuffle out of the model that is to be split",
        )
        return None
