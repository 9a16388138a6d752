"""Patches that are cut out, averaged and laid back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cerewrite.errors import NoClosedFormError
from tests.ops.test_creation import kernel, mean

PATCHES = {"kernel_size": 3, "padding": 1, "stride": 2}


def test_patches_count_as_often_as_they_cover_a_position() -> None:
    def outlook(x: Tensor) -> Tensor:
        patches = functional.unfold(x, **PATCHES)
        weights = patches.transpose(1, 2) @ patches
        mixed = weights.softmax(-1) @ patches.transpose(1, 2)
        return mean(functional.fold(mixed.transpose(1, 2), x.shape[-2:], **PATCHES))

    ones = torch.ones(1, 1, 4, 4)
    counts = functional.fold(functional.unfold(ones + 0, **PATCHES).fill_(1), (4, 4), **PATCHES)
    square = float(counts.square().mean())
    assert square > 1
    assert kernel(outlook) == pytest.approx(2.0 * square, rel=1e-6)


def test_values_that_are_no_patches_are_refused() -> None:
    def laid(x: Tensor) -> Tensor:
        return mean(functional.fold(x.flatten(2).reshape(2, 32, 4), (4, 4), 2, stride=2))

    with pytest.raises(NoClosedFormError, match="no patches"):
        kernel(laid)
