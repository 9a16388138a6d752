"""The document of levels: what counts as near, and where its part stands."""

from __future__ import annotations

import pytest

from benchmarks import levels
from benchmarks.accuracy import known
from benchmarks.kinds import KINDS, make
from benchmarks.levels import Figure, Row

ROW = Row("net", Figure(0.12, 0.01, 0.1, 0.002), Figure(0.3, 0.001, 0.1, 0.002), None, 1.5, 64, 2.0)


def test_near_is_20_percent_or_two_errors() -> None:
    assert Figure(1.19, 0.0, 1.0, 0.0).near
    assert not Figure(1.21, 0.0, 1.0, 0.0).near
    assert Figure(1.5, 0.25, 1.0, 0.0).near
    assert not Figure(1.6, 0.25, 1.0, 0.1).near


def test_the_part_says_what_is_far() -> None:
    text = levels.section([ROW], "64 draws")
    assert "Var[log K] 1 of 1, nu 0 of 1; farthest 3.00 times, beyond 1.5" in text.replace(
        "\n", " "
    )
    assert text.count("**far**") == 1
    assert "refused" in text


def test_the_part_is_replaced_and_the_rest_stays() -> None:
    document = levels.DOCUMENT.read_text(encoding="utf-8")
    first = levels.placed(document, levels.section([ROW], "64 draws"))
    second = levels.placed(first, levels.section([ROW], "96 draws"))
    assert levels.part_of(second) == levels.section([ROW], "96 draws")
    assert known(second) == known(document)


def test_parts_lie_side_by_side_and_keep_their_order() -> None:
    document = "# A\n\n## B\n"
    for name in ("third", "second", "first"):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        document = levels.placed(document, f"{begin}\n## {name}\n{end}", begin, end)
    found = levels.parts(document)
    assert [text.split()[5] for *_, text in found] == ["first", "second", "third"]
    assert all(text.count("begin") == 1 for *_, text in found)
    again = "# A\n\n## B\n"
    for begin, end, text in reversed(found):
        again = levels.placed(again, text, begin, end)
    assert again == document
    kept = levels.parts(levels.DOCUMENT.read_text(encoding="utf-8"))
    assert len(kept) == 3 and all(text.count(": begin -->") == 1 for *_, text in kept)


@pytest.mark.parametrize("name", list(KINDS))
def test_every_kind_runs_and_is_the_same_again(name: str) -> None:
    (first, x), (second, y) = make(name, 3), make(name, 3)
    assert first(x).equal(second(y))
    assert first(x).isfinite().all()
