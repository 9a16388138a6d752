from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cerewrite.verifier.shapes import run_for_shapes, smaller
from tests.rewriting.cases import ResNet


class Constant(nn.Module):
    """Keeps a tensor that is no buffer: it cannot run on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.offset = [torch.ones(2)]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.offset[0]


def test_shapes_come_from_the_meta_device_where_that_works() -> None:
    out = run_for_shapes(ResNet(), (torch.zeros(2, 3, 6, 6),), training=True)
    assert out.is_meta and out.shape == (2, 5)
    seen: list[nn.Module] = []
    real = run_for_shapes(Constant(), (torch.zeros(4, 3),), training=False, prepare=seen.append)
    assert not real.is_meta and real.shape == (4, 2) and len(seen) == 2
    with pytest.raises(RuntimeError):
        run_for_shapes(Constant(), (torch.zeros(4, 5),), training=False)


def test_images_are_cropped_if_every_model_takes_the_crops() -> None:
    image = torch.randn(2, 3, 80, 40)
    fixed = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AvgPool2d(40), nn.Flatten(), nn.Linear(10, 2))
    assert smaller((image,), ResNet(), training=True)[0].shape == (2, 3, 64, 40)
    assert smaller({"x": image}, ResNet(), training=False)["x"].shape == (2, 3, 32, 32)
    for refused in (
        smaller((image,), ResNet(), fixed, training=True),
        smaller((image,), nn.AvgPool2d(40), fixed, training=False),
    ):
        assert refused[0] is image


def test_what_is_no_image_is_left_alone() -> None:
    inputs = (torch.randn(2, 90, 90), torch.ones(1, 1, 90, 90, dtype=torch.long))
    assert smaller(inputs, nn.Identity(), training=False) is inputs
