from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from cerewrite.errors import RewriteError, UsageError
from cerewrite.rewriting import PASSES, Pass, PassResult, Session, rewrite
from cerewrite.rewriting.engine import default_passes, order, run
from tests.rewriting.cases import CASES


def make(name: str, *after: str, broken: str = "") -> Pass:
    """A pass that does nothing, or raises in one of its three steps."""

    @dataclass(frozen=True)
    class Made(Pass):
        pass

    def step(this: str):  # noqa: ANN202
        def method(self: Pass, session: Session) -> PassResult | None:
            if this == broken:
                raise ValueError("no such luck")
            return PassResult(name, "nothing") if this == "apply" else None

        return method

    for this in ("requires", "apply", "ensures"):
        setattr(Made, this, step(this))
    Made.name, Made.after = name, after
    Made.__abstractmethods__ = frozenset()
    return Made()


def session() -> Session:
    model = CASES["tokens"].model()
    return Session(model, CASES["tokens"].plan(model))


def test_all_passes_are_discovered_by_listing_the_folder() -> None:
    assert {"reinitialise", "resize_norm", "split_conv", "split_linear"} <= set(PASSES)
    for name, kind in PASSES.items():
        assert kind.name == name and kind.__doc__ and set(kind.after) <= set(PASSES)


def test_order_follows_after_and_is_stable() -> None:
    passes = [make("c", "b"), make("b", "reinitialise"), make("a", "c"), make("d")]
    assert [p.name for p in order(passes)] == ["b", "c", "a", "d"]
    names = [p.name for p in order(default_passes())]
    assert names[-2:] == ["reinitialise", "transfer_weights"]


def test_orders_that_cannot_be() -> None:
    with pytest.raises(RewriteError, match="wait for each other"):
        order([make("a", "b"), make("b", "a")])
    with pytest.raises(RewriteError, match="does not exist"):
        order([make("a", "split_con")])
    with pytest.raises(RewriteError, match="given twice"):
        order([make("a"), make("a")])
    with pytest.raises(UsageError, match="did you mean 'split_conv'"):
        PASSES["split_con"]


@pytest.mark.parametrize("step", ["requires", "apply", "ensures"])
def test_failures_name_the_pass_and_those_before(step: str) -> None:
    passes = [make("first"), make("second", "first", broken=step)]
    with pytest.raises(RewriteError, match=r"'second' failed \(passes run before: first\)") as info:
        run(passes, session())
    assert "ValueError: no such luck" in info.value.message
    assert isinstance(info.value.__cause__, ValueError)


def test_a_region_left_half_done_is_refused() -> None:
    case = CASES["cnn"]
    with pytest.raises(RewriteError, match=r"no pass rewrote '\d+'"):
        rewrite(case.plan(), case.model(), passes=[PASSES["split_conv"]()])


def test_undrawn_weights_are_refused() -> None:
    @dataclass(frozen=True)
    class Forgetful(PASSES["reinitialise"]):
        name: ClassVar[str] = "forgetful"

        def apply(self, session: Session) -> PassResult:
            return PassResult(self.name, "forgot")

    case = CASES["tokens"]
    with pytest.raises(RewriteError, match="left undrawn"):
        rewrite(case.plan(), case.model(), passes=[PASSES["split_linear"](), Forgetful()])


def test_details_are_true() -> None:
    case = CASES["cnn"]
    results = {r.name: r for r in rewrite(case.plan(), case.model()).passes}
    assert results["split_conv"].details == "4 conv layers split"
    assert results["resize_norm"].details == "5 per-channel modules resized"
    assert results["split_linear"].details == "0 linear layers split"
    assert results["reinitialise"].details == "5 layers drawn"


def test_undo_restores_module_identity() -> None:
    started = session()
    old = started.get("2")
    started.swap("2", nn.Identity())
    started.swap("2", nn.ReLU())
    assert isinstance(started.get("2"), nn.ReLU)
    started.undo()
    assert started.get("2") is old
    with pytest.raises(RewriteError, match="no module 'nowhere'"):
        started.swap("nowhere", nn.ReLU())
    assert torch.is_tensor(old.weight)
