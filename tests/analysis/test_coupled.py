"""Concatenations and existing groups in regions: held, torn, re-chosen, equal to narrow nets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.analysis import find_regions
from cerewrite.api.conversion import Conversion
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Region, Rejection
from cerewrite.nn import ChannelReorder
from tests.rewriting.cases import Dense, Gated, Towers


def regions(model: nn.Module, x: Tensor) -> tuple[tuple[Region, ...], dict[str, Rejection]]:
    found, rejections = find_regions(trace(model, x), "block")
    return found, {rejection.where: rejection for rejection in rejections}


class Joined(nn.Module):
    """Two hidden layers side by side, of which the first may be kept from being split."""

    def __init__(self, kept: str = "") -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(6, 8)
        self.hidden, self.last = nn.Linear(16, 8), nn.Linear(8, 3)
        self.kept = kept

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        one, two = self.one(x).relu(), self.two(x).relu()
        other = one.cumsum(1) if self.kept == "unknown" else one
        y = self.last(self.hidden(torch.cat([other, two], 1)).relu())
        return (y, one) if self.kept == "output" else y


def test_classes_of_a_concatenation_are_one_region() -> None:
    (region,), _ = regions(Joined(), torch.ones(2, 6))
    assert region.classes == ("one", "two", "hidden")
    assert [(y.name, y.role, y.sources, y.target) for y in region.layers] == [
        ("one", "entry", (), 0),
        ("two", "entry", (), 1),
        ("hidden", "interior", (0, 1), 2),
        ("last", "exit", (2,), -1),
    ]


@pytest.mark.parametrize(
    ("kept", "reason"), [("output", "concatenated with 'one'"), ("unknown", "width is fixed")]
)
def test_a_part_that_keeps_its_width_keeps_the_others(kept: str, reason: str) -> None:
    found, rejections = regions(Joined(kept), torch.ones(2, 6))
    assert not found
    assert rejections["two"].code == "concatenated-with-fixed"
    assert reason in rejections["two"].reason and rejections["two"].advice


def test_traced_regions_equal_those_written_by_hand() -> None:
    from tests.rewriting.cases import CASES

    for name in ("dense", "towers", "gated"):
        case = CASES[name]
        model = case.model()
        (region,), _ = regions(model, *case.inputs())
        (wanted,) = case.regions(model)
        assert (region.classes, region.sizes) == (wanted.classes, wanted.sizes)
        for found, by_hand in zip(region.layers, wanted.layers, strict=True):
            for field in ("name", "role", "sources", "target", "kernel", "groups"):
                assert getattr(found, field) == getattr(by_hand, field), (name, field)
        assert {(m.name, m.widths) for m in region.modules} == {
            (m.name, m.widths) for m in wanted.modules
        }


MODELS = {
    "dense": (Dense, (2, 3, 5, 5)),
    "towers": (Towers, (4, 5)),
    "gated": (Gated, (2, 3, 4, 4)),
}


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_conversion_holds_its_laws(name: str, uniform: bool) -> None:
    build, shape = MODELS[name]
    torch.manual_seed(0)
    model, x = build(), torch.randn(shape)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result: Conversion = cerewrite.convert(
        model, x, budget="params=1.5x", uniform=uniform, estimator="analytic"
    )
    assert result.verification.passed
    assert result.plan.planned.params == sum(p.numel() for p in result.model.parameters())
    back = cerewrite.revert(result.model).state_dict()
    assert all(torch.equal(value, back[key]) for key, value in before.items())


def test_members_of_a_dense_block_read_their_own_slices() -> None:
    """A planted fault: without the reordering, members read each other's channels."""
    from cerewrite.rewriting import rewrite
    from cerewrite.verifier import verify
    from tests.rewriting.cases import CASES

    case = CASES["dense"]
    model = case.model()
    plan = case.plan(model)
    new = rewrite(plan, model).model
    assert isinstance(new.grow2.reorder, ChannelReorder)
    checks = {c.name: c.passed for c in verify(model, new, plan, case.inputs()).checks}
    assert checks["membership"]
    order = new.grow2.reorder.order
    order.copy_(torch.arange(len(order)))
    checks = {c.name: c.passed for c in verify(model, new, plan, case.inputs()).checks}
    assert not checks["membership"]


def test_a_group_norm_over_a_concatenation_is_refused() -> None:
    model = Joined()
    model.hidden = nn.Sequential(nn.GroupNorm(4, 16), nn.Linear(16, 8))
    found, rejections = regions(model, torch.ones(2, 6))
    assert rejections["one"].code == "norm-over-concatenation"
    assert not found
