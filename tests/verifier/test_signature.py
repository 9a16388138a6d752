"""The signature, where sizes depend on values or examples come as a list."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.frontend.tracing import trace
from cerewrite.verifier.budget import count_flops
from cerewrite.verifier.signature import check_signature
from tests.models import chain


class Detector(nn.Module):
    """Takes a list of images ``[3, side, side]``, returns the rows whose score is positive."""

    def __init__(self, columns: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, columns, 1),
        )

    def forward(self, images: list[Tensor]) -> Tensor:
        rows = self.body(torch.stack(images)).permute(0, 2, 3, 1).flatten(0, 2)
        return rows[rows[:, 0] > 0]


class Stacking(nn.Module):
    """Takes a list of images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Detector().body

    def forward(self, images: list[Tensor]) -> Tensor:
        y: Tensor = self.body(torch.stack(images))
        return y


IMAGES = [torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]


def plan() -> cerewrite.ir.Plan:
    return cerewrite.plan(
        cerewrite.analyze(chain([8, 8, 8], inputs=4), torch.randn(2, 4), estimator="analytic")
    )


def test_sizes_that_depend_on_values_may_differ() -> None:
    torch.manual_seed(0)
    one, other = Detector(), Detector()
    assert one(IMAGES).shape != other(IMAGES).shape
    (check,) = check_signature(one, other, plan(), (IMAGES,))
    assert check.passed and "(?, 4) float32" in check.detail
    (check,) = check_signature(one, Detector(columns=5), plan(), (IMAGES,))
    assert not check.passed and "(?" not in check.detail


def test_sizes_that_do_not_depend_on_values_may_not() -> None:
    torch.manual_seed(0)
    one = chain([8, 8, 8], inputs=4)
    other = copy.deepcopy(one)
    other.append(nn.Linear(next(reversed(list(one.parameters()))).shape[0], 9))
    (check,) = check_signature(one, other, plan(), (torch.randn(2, 4),))
    assert not check.passed


def test_a_model_that_cannot_run_with_other_signs_keeps_the_message() -> None:
    one, other = (chain([8, 8, 8], inputs=4).to("meta") for _ in range(2))
    other.append(nn.Linear(next(reversed(list(one.parameters()))).shape[0], 9, device="meta"))
    (check,) = check_signature(one, other, plan(), (torch.randn(2, 4),))
    assert not check.passed and "became (2, 9) float32" in check.detail


def test_a_list_of_images_is_a_batch() -> None:
    flops = 2 * 64 * (27 * 16 + 9 * 16 * 16 + 16 * 4)
    traced = trace(Stacking(), (IMAGES,))
    assert traced.batch == 2 and traced.flops == flops
    assert count_flops(Detector(), (IMAGES,)) == flops
