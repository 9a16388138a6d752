from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from cerewrite.errors import RewriteError, UsageError
from cerewrite.rewriting import PASSES, Pass, PassResult, Phase, Session, rewrite
from cerewrite.rewriting.engine import default_passes, order, run
from tests.rewriting.cases import CASES


def make(name: str, phase: Phase | None = Phase.SPLIT, broken: str = "") -> Pass:
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
    Made.name = name
    if phase is not None:
        Made.phase = phase
    Made.__abstractmethods__ = frozenset()
    return Made()


def session() -> Session:
    model = CASES["tokens"].model()
    return Session(model, CASES["tokens"].plan(model))


def test_all_passes_are_discovered_by_listing_the_folder() -> None:
    assert {"reinitialise", "resize_norm", "split_layers"} <= set(PASSES)
    for name, kind in PASSES.items():
        assert kind.name == name and kind.__doc__ and isinstance(kind.phase, Phase)


def test_order_follows_phases_then_names() -> None:
    passes = [make("c", Phase.DRAW), make("b", Phase.RESIZE), make("d"), make("a", Phase.DRAW)]
    assert [p.name for p in order(passes)] == ["b", "d", "a", "c"]
    assert [p.name for p in order(default_passes())] == [
        "resize_norm",
        "split_layers",
        "reorder_concat",
        "scale_exits",
        "reinitialise",
        "transfer_weights",
    ]


def test_a_pass_from_elsewhere_runs_in_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(make("anneal", Phase.SCALE))
    assert len(PASSES)
    monkeypatch.setitem(PASSES._items, "anneal", kind)
    case = CASES["tokens"]
    ran = [result.name for result in rewrite(case.plan(), case.model()).passes]
    assert ran.index("reorder_concat") < ran.index("anneal") < ran.index("scale_exits")


def test_orders_that_cannot_be() -> None:
    with pytest.raises(RewriteError, match="'a' does not say when it runs"):
        order([make("a", None)])
    with pytest.raises(RewriteError, match="given twice"):
        order([make("a"), make("a")])
    with pytest.raises(UsageError, match="did you mean 'split_layers'"):
        PASSES["split_layer"]


@pytest.mark.parametrize("step", ["requires", "apply", "ensures"])
def test_failures_name_the_pass_and_those_before(step: str) -> None:
    passes = [make("first"), make("second", broken=step)]
    with pytest.raises(RewriteError, match=r"'second' failed \(passes run before: first\)") as info:
        run(passes, session())
    assert "ValueError: no such luck" in info.value.message
    assert isinstance(info.value.__cause__, ValueError)


def test_a_region_left_half_done_is_refused() -> None:
    case = CASES["cnn"]
    with pytest.raises(RewriteError, match=r"no pass rewrote '\d+'"):
        rewrite(case.plan(), case.model(), passes=[PASSES["split_layers"]()])


def test_undrawn_weights_are_refused() -> None:
    @dataclass(frozen=True)
    class Forgetful(PASSES["reinitialise"]):
        name: ClassVar[str] = "forgetful"

        def apply(self, session: Session) -> PassResult:
            return PassResult(self.name, "forgot")

    case = CASES["tokens"]
    with pytest.raises(RewriteError, match="left undrawn"):
        rewrite(case.plan(), case.model(), passes=[PASSES["split_layers"](), Forgetful()])


def test_details_are_true() -> None:
    case = CASES["cnn"]
    results = {r.name: r for r in rewrite(case.plan(), case.model()).passes}
    assert results["split_layers"].details == "4 conv layers split"
    assert results["resize_norm"].details == "5 per-channel modules resized"
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
