"""Include and exclude rules."""

from __future__ import annotations

import pytest

from cerewrite.errors import UsageError
from cerewrite.planning.rules import select_regions
from tests.planning.builders import analysis_of, chain_region

ANALYSIS = analysis_of(
    [
        chain_region("layer1.0", [8, 8], 8, 8, op="conv", norm=2),
        chain_region("layer1.1", [8, 8], 8, 8, op="conv"),
        chain_region("head", [8, 8], 8, 8),
    ],
    extra_kappas=(0.1,),
)


def kept(include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
    return [region.name for region in select_regions(ANALYSIS, include, exclude)[0]]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), ["layer1.0", "layer1.1", "head"]),
        (("layer1.*",), (), ["layer1.0", "layer1.1"]),
        (("layer1.0.l1",), (), ["layer1.0"]),
        (("re:^layer1\\.[01]$",), ("*.1",), ["layer1.0"]),
        (("head", "layer1.1"), (), ["layer1.1", "head"]),
        ((), ("type:linear",), ["layer1.0", "layer1.1"]),
        ((), ("type:Linear",), ["layer1.0", "layer1.1"]),
        (("type:Conv2d",), (), ["layer1.0", "layer1.1"]),
        (("type:BatchNorm2d",), (), ["layer1.0"]),
        (("type:batch_norm",), (), ["layer1.0"]),
    ],
)
def test_rules(include: tuple[str, ...], exclude: tuple[str, ...], expected: list[str]) -> None:
    assert kept(include, exclude) == expected


def test_others_are_rejected_with_the_reason() -> None:
    _, rejections = select_regions(ANALYSIS, ["layer1.*"], ["layer1.0"])
    assert [(item.where, item.code) for item in rejections] == [
        ("layer1.0", "excluded"),
        ("head", "excluded"),
    ]
    assert rejections[0].reason == "an exclude rule matches it"
    assert rejections[1].reason == "no include rule matches"


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        (("layer9*",), (), "--include 'layer9\\*' matches no region"),
        ((), ("type:gru",), "--exclude 'type:gru' matches no region"),
        ((), ("extra0",), "matches layers of the model, but none in a region"),
        (("re:(",), (), "is no regular expression"),
        (("layer1.0",), ("layer1.*",), "--include 'layer1.0' has no effect"),
        (("head",), ("layer1.*",), "--exclude 'layer1.\\*' has no effect"),
        (("head", "layer1.0"), ("layer1.*",), "--include 'layer1.0' has no effect"),
    ],
)
def test_rules_without_effect(
    include: tuple[str, ...], exclude: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        kept(include, exclude)
