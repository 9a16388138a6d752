from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from cerewrite.rewriting import revert, rewrite
from cerewrite.runtime.fingerprint import fingerprint
from tests.rewriting.cases import CASES, ResNet


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.double(),
        lambda m: m.eval(),
        lambda m: m.to("meta"),
        lambda m: m.requires_grad_(False),
        lambda m: nn.init.normal_(m.head.weight) is not None and m,
        copy.deepcopy,
    ],
)
def test_independent_of_everything_but_structure(
    change: Callable[[nn.Module], nn.Module],
) -> None:
    assert fingerprint(change(ResNet())) == fingerprint(ResNet())


def swap_head(model: nn.Module) -> None:
    model.head = nn.Linear(12, 6)


def change_stride(model: nn.Module) -> None:
    model.blocks[0].conv2.stride = (2, 2)


def tie(model: nn.Module) -> None:
    model.blocks[0].bn1.bias = model.blocks[0].bn2.bias


def rename(model: nn.Module) -> None:
    model.tail = model.head
    del model.head


@pytest.mark.parametrize("change", [swap_head, change_stride, tie, rename])
def test_sensitive_to_structure(change: Callable[[nn.Module], None]) -> None:
    model = ResNet()
    change(model)
    assert fingerprint(model) != fingerprint(ResNet())


def test_differs_after_a_rewrite_and_returns_after_a_revert() -> None:
    case = CASES["resnet"]
    model = case.model()
    new = rewrite(case.plan(model), model).model
    assert fingerprint(new) != fingerprint(model)
    assert fingerprint(revert(new)) == fingerprint(model)


def test_memory_addresses_do_not_count() -> None:
    class Shown(nn.Module):
        def extra_repr(self) -> str:
            return f"act={object()}"

    assert fingerprint(Shown()) == fingerprint(Shown())
    assert len(fingerprint(nn.LazyLinear(3))) == 64
    assert torch.get_default_dtype() == torch.float32
