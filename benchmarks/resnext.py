"""ResNeXt-29 for 32-pixel images (Xie et al., 1611.05431), as the paper's code release builds it.

One member of width 128 is the baseline of Collegial Ensembles: 13,775,178 parameters.
"""

from __future__ import annotations

from torch import Tensor, nn


def _joined(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """``relu(shortcut(x) + expand(relu(spatial(relu(reduce(x))))))``, norms after convolutions."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, members: int) -> None:
        super().__init__()
        total = members * width
        self.reduce = _joined(inputs, total, 1, 1, 1)
        self.spatial = _joined(total, total, 3, stride, members)
        self.expand = _joined(total, outputs, 1, 1, 1)
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else _joined(inputs, outputs, 1, stride, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, inputs, h, w]`` to ``[batch, outputs, h / stride, w / stride]``."""
        hidden = self.relu(self.spatial(self.relu(self.reduce(x))))
        summed: Tensor = self.relu(self.shortcut(x) + self.expand(hidden))
        return summed


class ResNeXt29(nn.Module):
    """A stem, three stages of three blocks, an average pool and ten classes.

    Args:
        members: members of every block.
        width: width of a member in the first stage; it doubles from stage to stage.
    """

    def __init__(self, members: int = 1, width: int = 128) -> None:
        super().__init__()
        self.stem = nn.Sequential(_joined(3, 64, 3, 1, 1), nn.ReLU())
        stages, inputs = [], 64
        for stage in range(3):
            outputs, blocks = 256 << stage, []
            for block in range(3):
                stride = 2 if stage and not block else 1
                blocks.append(Block(inputs, width << stage, outputs, stride, members))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(inputs, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores ``[batch, 10]`` of images ``[batch, 3, 32, 32]``."""
        scores: Tensor = self.head(self.pool(self.stages(self.stem(images))))
        return scores
