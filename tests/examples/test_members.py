"""The examples of members that are trained on their own losses, in short settings."""

from __future__ import annotations

import importlib

import pytest

from examples.members import plain_loop


@pytest.mark.thorough
def test_plain_loop() -> None:
    alone, together = plain_loop.main(epochs=4)
    assert alone > 0.8 and together > 0.85  # a tenth is chance


@pytest.mark.parametrize(
    ("name", "needs"),
    [("with_lightning", ["lightning"]), ("with_trainer", ["transformers", "accelerate"])],
)
def test_frameworks(name: str, needs: list[str]) -> None:
    for package in needs:
        pytest.importorskip(package, reason=f"the example needs {package}")
    assert importlib.import_module(f"examples.members.{name}").main(epochs=4) > 0.85
