"""Laws over every registered operator rule."""

from __future__ import annotations

from collections import Counter

import pytest

from cerewrite.ops import OPRULES, LayerRule, ModuleRule


def test_no_two_rules_claim_one_operator() -> None:
    claims = Counter(target for rule in OPRULES.values() for target in rule.targets)
    assert [target for target, count in claims.items() if count > 1] == []


@pytest.mark.parametrize("name", OPRULES)
def test_rules_are_named_and_documented(name: str) -> None:
    rule = OPRULES[name]
    assert rule.name == name
    assert type(rule).__doc__
    if isinstance(rule, LayerRule | ModuleRule):
        assert rule.modules
