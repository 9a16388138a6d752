"""Numbers that remember the shapes they come from."""

from __future__ import annotations

import torch

from cerewrite.ir import Length


def test_a_length_is_a_number_that_remembers() -> None:
    width, tokens = Length(12, [("x", 2)]), Length(5, [("x", 1)])
    assert width == 12 and width.exact and isinstance(width, int)
    for made in (width // 4, 2 * width, width + 1, 1 + width, width - 2, 24 // width, 20 - width):
        assert isinstance(made, Length) and made.axes == (("x", 2),) and not made.exact
    both = tokens * width
    assert isinstance(both, Length) and both == 60 and both.axes == (("x", 1), ("x", 2))
    assert width * 0.5 == 6.0 and not isinstance(width * 0.5, Length)


def test_shapes_of_torch_keep_lengths() -> None:
    shape = torch.Size([Length(2, [("x", 0)]), Length(12, [("x", 1)])])
    assert isinstance(shape[-1], Length) and isinstance(shape[1:][0], Length)
    assert torch.zeros(24).view(shape).shape == (2, 12)
