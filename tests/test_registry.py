"""Registries: discovery by listing a folder, near misses, no silent replacement."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from cerewrite import registry
from cerewrite.errors import UsageError
from cerewrite.registry import Registry, suggest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of two modules that register themselves."""
    name = "registered_colours"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from cerewrite.registry import Registry\n"
        f"COLOURS = Registry('colour', '{name}', '{name}.plugins')\n"
    )
    for colour, value in (("red", 1), ("green", 2)):
        (folder / f"{colour}.py").write_text(
            f"from {name} import COLOURS\nCOLOURS.register('{colour}', {value})\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def test_discovers_every_module_of_its_package(package: str) -> None:
    colours = __import__(package).COLOURS
    assert f"{package}.red" not in sys.modules
    assert list(colours) == ["green", "red"]
    assert dict(colours) == {"green": 2, "red": 1}
    assert len(colours) == 2


def test_looks_up_the_entry_point_group(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint("blue", f"{package}.plugin_blue", group)]

    plugin = "from registered_colours import COLOURS\nCOLOURS.register('blue', 3)\n"
    module = __import__(package)
    Path(str(module.__file__)).with_name("plugin_blue.py").write_text(plugin)
    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert "blue" in module.COLOURS
    assert asked == [f"{package}.plugins"]


def test_unknown_name_is_a_usage_error_with_a_near_miss() -> None:
    colours: Registry[int] = Registry("colour")
    colours.register("red", 1)
    with pytest.raises(UsageError, match=r"unknown colour 'rde'") as caught:
        colours["rde"]
    assert "did you mean 'red'" in caught.value.advice
    assert "rde" not in colours


def test_second_item_of_a_name_is_refused() -> None:
    colours: Registry[int] = Registry("colour")
    colours.register("red", 1)
    with pytest.raises(UsageError, match="registered twice"):
        colours.register("red", 2)
    assert colours["red"] == 1


def test_decorator_returns_what_it_decorates() -> None:
    kinds: Registry[object] = Registry("kind")

    @kinds.instance
    class One:
        name = "one"

    assert type(kinds["one"]) is One


def test_suggest_lists_the_choices() -> None:
    assert suggest("x", {"b": 1, "a": 2}) == "choose from: a, b"
    assert suggest("x", {}) == "choose from: none"
