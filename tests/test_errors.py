"""Every error says what, why and what to do, and has an exit code of its family."""

from __future__ import annotations

import inspect

import pytest

from cerewrite import errors
from cerewrite.errors import CerewriteError, InfeasibleBudgetError, PlanError, StalePlanError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, CerewriteError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_shows_message_and_advice(kind: type[CerewriteError]) -> None:
    error = kind("model.py: no such file", advice="check the path")
    assert str(error) == "model.py: no such file\n  -> check the path"
    assert (error.message, error.advice) == ("model.py: no such file", "check the path")
    with pytest.raises(TypeError, match="advice"):
        kind("no advice")  # type: ignore[call-arg]


def test_families_have_exit_codes_of_their_own() -> None:
    families = [kind for kind in KINDS if CerewriteError in (kind, *kind.__bases__)]
    codes = [kind.exit_code for kind in families]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert InfeasibleBudgetError.exit_code == StalePlanError.exit_code == PlanError.exit_code


def test_usage_has_the_code_that_click_gives() -> None:
    assert errors.UsageError.exit_code == 2


def test_every_error_is_public() -> None:
    import cerewrite

    assert {kind.__name__ for kind in KINDS} <= set(cerewrite.__all__)
