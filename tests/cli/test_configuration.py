"""Defaults from ``cerewrite.toml`` and presets: what wins, and how a wrong file is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import BashComplete

from cerewrite import ir
from cerewrite.cli import main
from cerewrite.cli.command import verbs
from cerewrite.cli.configuration import as_text, flags, shared_by
from cerewrite.cli.presets import PRESETS
from tests.cli.running import run

assert isinstance(main, click.Group)
VERBS = verbs(main)


def values(verb: str, *arguments: str) -> dict[str, Any]:
    """What a verb would be called with, in this folder."""
    assert isinstance(main, click.Group)
    command = main.commands[verb]
    with command.make_context(verb, list(arguments), parent=click.Context(main)) as context:
        return dict(context.params)


def test_the_file_sets_what_the_command_line_does_not(model: Path) -> None:
    Path("cerewrite.toml").write_text(
        'estimator = "analytic"\nmin-width = 8\nbudget = "flops=0.9x"\n[plan]\nmin-width = 16\n'
        '[convert]\nbench = true\nout = "build"\n'
    )
    assert values("analyze", "m.py")["estimator"] == "analytic"
    assert values("plan", "m.py")["min_width"] == 16
    assert values("plan", "m.py", "--min-width", "4")["min_width"] == 4
    found = values("convert", "m.py")
    assert (found["min_width"], found["bench"], found["out"]) == (8, True, "build")
    assert [item.text for item in found["budget"]] == ["flops=0.9x"]
    shown = run("plan", "model.py", "--min-width", 32)
    assert "options from cerewrite.toml (budget, estimator)" in shown.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min-widht = 8", "no option 'min-widht'\n  -> did you mean 'min-width'?"),
        ("min_width = 8", "did you mean 'min-width'?"),
        ("[plna]\n", "no verb 'plna'\n  -> did you mean 'plan'?"),
        ("[analyze]\nbudget = 'params'", "[analyze] no option 'budget'"),
        ("min-width = 0", "min-width: 0 is not in the range x>=1"),
        ("min-width = 3.7", "min-width: '3.7' is not a valid integer"),
        ("min-width = true", "min-width is True\n  -> this option takes a value"),
        ("min-width = [8]", "min-width is an array\n  -> give one value"),
        ("min-width = 1979-05-27", "give text, numbers, or an array of them"),
        ("uniform = 1", "uniform is 1\n  -> a switch is true or false"),
        ("scope = 'blok'", "scope: 'blok' is not one of 'block'"),
        ("budget = ['parms']", "budget: "),
        ("out = 'x'", "'out' means something else to each verb\n  -> put it under one of ["),
        ("members = 4", "put it under one of [plan], [convert], [export]"),
        ("gain = ", "no TOML: "),
        ("gain = \x00", "no TOML: "),
        ("gain = " + "[" * 5000, "no TOML: "),
        ("for = 'trainig'", "for: 'trainig' is not one of "),
    ],
)
def test_a_wrong_file_is_refused_by_name(model: Path, text: str, message: str) -> None:
    Path("cerewrite.toml").write_text(text)
    result = run("plan", "model.py")
    assert result.exit_code == 2, result.stdout
    assert message in result.stderr and "cerewrite.toml: " in result.stderr
    assert result.stdout == ""
    assert run("plan", "--help").exit_code == 0
    assert run("init", "--force").exit_code == 0


def test_a_folder_in_the_place_of_the_file_is_refused(model: Path) -> None:
    Path("cerewrite.toml").mkdir()
    result = run("plan", "model.py")
    assert result.exit_code == 2 and "cerewrite.toml: Is a directory" in result.stderr


@pytest.mark.held
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_options_that_it_lists(name: str, model: Path) -> None:
    typed: list[str] = []
    for option, value, _ in PRESETS[name].options:
        made = as_text(value)
        if made is True:
            typed.append(f"--{option}")
        for item in made if isinstance(made, list) else [made] if made is not True else []:
            typed += [f"--{option}", item]
    assert values("convert", "m.py", "--for", name) == values("convert", "m.py", *typed)
    shown = run("list", "presets").stdout
    assert all(f"--{option}" in shown for option, _, _ in PRESETS[name].options)
    assert all(option in flags(VERBS["convert"]) for option, _, _ in PRESETS[name].options)


def test_what_is_given_wins_over_the_file_and_the_file_over_the_preset(model: Path) -> None:
    Path("cerewrite.toml").write_text('for = "research"\nmeasure = "log-variance"\n')
    found = values("plan", "m.py")
    assert (found["measure"], found["draws"], found["allow"]) == ("log-variance", 512, ("all",))
    assert values("plan", "m.py", "--draws", "64")["draws"] == 64
    assert values("plan", "m.py", "--for", "training")["draws"] is None
    picked = values("plan", "m.py", "--pick", "2x")  # excludes what the preset allows
    assert (picked["pick"], picked["allow"]) == ("2x", ())
    asked = values("convert", "m.py", "--members", "4", "--for", "training")
    assert asked["scope"] == "block"  # take_scope then sees that none was asked for


@pytest.mark.held
def test_init_writes_every_option_and_every_line_may_be_taken_in(model: Path) -> None:
    written = run("init", "--json", "-", "--out", "cerewrite.toml")
    assert json.loads(written.stdout) == {
        "path": "cerewrite.toml",
        "size": Path("cerewrite.toml").stat().st_size,
    }
    text = Path("cerewrite.toml").read_text()
    assert tomllib.loads(text).keys() == VERBS.keys()  # nothing set: tables only
    assert values("plan", "m.py") == {**values("plan", "m.py")}
    live = re.sub(r"^#(?=[\w-]+ = )", "", text, flags=re.MULTILINE)
    data = tomllib.loads(live)
    for verb, command in VERBS.items():
        assert flags(command).keys() <= data.keys() | data[verb].keys()
    for key in (key for key, item in data.items() if not isinstance(item, dict)):
        assert shared_by(key, VERBS)
    again = run("init")
    assert again.exit_code == 10 and "cerewrite.toml: exists" in again.stderr
    assert run("init", "--for", "servers", "--force").exit_code == 0
    assert values("plan", "m.py")["latency_batch"] == 1


def test_every_verb_has_json_and_its_schema() -> None:
    for name, command in VERBS.items():
        assert "json" in flags(command), name
        schema = json.loads(run("schema", name).stdout)
        assert schema["$defs"][schema["title"]]["properties"], name
    assert json.loads(run("schema", "bench").stdout)["type"] == "array"
    wrong = run("schema", "benhc")
    assert wrong.exit_code == 2 and "did you mean 'bench'?" in wrong.stderr


def test_json_of_the_short_answers(model: Path) -> None:
    found = run("explain", "model.py", "0", "--estimator", "analytic", "--json", "-")
    known = ir.loads(ir.Explanation, found.stdout, source="-")
    assert known.layer is not None and known.layer.name == "0"
    assert [region.name for region in known.regions] == ["0"]
    listed = json.loads(run("list", "presets", "--json", "-").stdout)
    assert [item["name"] for item in listed] == list(PRESETS)
    made = run("plan", "model.py", "--estimator", "analytic", "--json", "-", "--out", "plan.json")
    assert made.stdout == Path("plan.json").read_text()
    dry = run("convert", "model.py", "--dry-run", "--json", "-")
    assert dry.exit_code == 2 and "cerewrite plan MODEL --json" in dry.stderr


@pytest.mark.thorough
def test_json_of_a_conversion_and_what_follows(model: Path) -> None:
    made = run("convert", "model.py", "--estimator", "analytic", "--out", "out", "--json", "-")
    report = ir.loads(ir.Report, made.stdout, source="-")
    kept = ir.loads(ir.Report, Path("out", "report.json").read_text(), source="file")
    assert report.plan is not None and kept.plan is not None
    assert (report.analysis, report.verification) == (kept.analysis, kept.verification)
    assert dataclasses.replace(report.plan, source=kept.plan.source) == kept.plan
    checked = run("verify", "out", "--json", "-")
    assert ir.loads(ir.Verification, checked.stdout, source="-").passed
    exported = run("export", "out", "--out", "net.onnx", "--json", "-")
    (record,) = json.loads(exported.stdout)
    assert record["path"] == "net.onnx" and record["parity"]


def test_help_shows_five_options_first_and_the_others_by_stage() -> None:
    text = run("convert", "--help").stdout
    titles = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert titles[0] == "First" and {"Analysis", "Plan", "Weights", "Export"} <= set(titles)
    first = text.partition("First:")[2].partition("\n\n")[0]
    assert re.findall(r"^  (--[a-z]+)", first, re.MULTILINE) == [
        "--out", "--for", "--budget", "--pick", "--onnx",
    ]  # fmt: skip
    assert all(f"  --{flag}" in text or f", --{flag}" in text for flag in flags(VERBS["convert"]))


def test_a_row_that_no_menu_has_is_answered_by_those_that_it_has() -> None:
    result = run("plan", "model.py", "--pick", "3x")
    assert result.exit_code == 2
    assert "'3x' is not one of 'held', '1.25x'" in result.stderr


def test_a_shell_completes_verbs_options_and_choices(model: Path) -> None:
    Path("cerewrite.toml").write_text("not toml")  # must not get in the way
    complete = BashComplete(main, {}, "cerewrite", "_CEREWRITE_COMPLETE")
    for words, start, wanted in (
        ([], "conv", "convert"),
        (["convert"], "--chan", "--channel-multiple"),
        (["convert", "--for"], "ser", "servers"),
    ):
        assert wanted in [item.value for item in complete.get_completions(words, start)]
