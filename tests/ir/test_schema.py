"""The published schema of plan.json: current, and satisfied by what is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cerewrite import ir
from cerewrite.errors import PlanError
from cerewrite.ir import schema
from cerewrite.planning import recount
from tests.conftest import Golden

GOLDEN = Path(__file__).parents[1] / "planning" / "golden_plan.json"
PLAN: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = schema.json_schema(ir.Plan)


def faults(data: Any, rule: dict[str, Any], where: str = "plan") -> list[str]:
    """What in the data breaks the rule; the part of JSON schema that the file uses."""
    if "$ref" in rule:
        return faults(data, SCHEMA["$defs"][rule["$ref"].rpartition("/")[2]], where)
    if "anyOf" in rule:
        found = [faults(data, one, where) for one in rule["anyOf"]]
        return min(found, key=len)
    if "enum" in rule:
        return [] if data in rule["enum"] else [where]
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kind = rule["type"]
    if kind in ("integer", "number"):
        fits = isinstance(data, int if kind == "integer" else int | float)
        fits = fits and not isinstance(data, bool)
        fits = fits and rule.get("minimum", data) <= data <= rule.get("maximum", data)
        return [] if fits else [where]
    if not isinstance(data, kinds[kind]):
        return [where]
    if kind == "string":
        return [] if re.search(rule.get("pattern", ""), data) else [where]
    if kind == "array":
        rules = rule.get("prefixItems") or [rule["items"]] * len(data)
        if len(rules) != len(data):
            return [where]
        return [f for i, x in enumerate(data) for f in faults(x, rules[i], f"{where}[{i}]")]
    if kind != "object":
        return []
    known = rule["properties"]
    found = [f"{where}.{name}" for name in rule["required"] if name not in data]
    for name, value in data.items():
        inner = f"{where}.{name}"
        found += faults(value, known[name], inner) if name in known else [inner]
    return found


def test_the_file_is_current(golden: Golden) -> None:
    assert golden(schema.PATH, schema.schema_text()) == schema.schema_text()


def test_a_plan_as_written_fits_with_notes_anywhere() -> None:
    assert faults(PLAN, SCHEMA) == []
    noted = json.loads(json.dumps(PLAN))
    noted["$schema"] = "plan.schema.json"
    noted["splits"][0]["note"] = noted["baseline"]["note"] = "looked at"
    noted["regions"][0]["layers"][0]["note"] = "why not"
    assert faults(noted, SCHEMA) == []
    read = ir.loads(ir.Plan, json.dumps(noted), source="plan.json")
    assert read.splits[0].note == "looked at"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("splits", 0, "multiplicity"), "four"),
        (("splits", 0, "widths"), 8),
        (("planned", "nu"), None),
        (("regions", 0, "layers", 0, "kernel"), 1.5),
        (("budgets", 0, "limits"), 7),
    ],
)
def test_schema_and_reader_name_the_same_field(path: tuple[Any, ...], value: Any) -> None:
    broken = json.loads(json.dumps(PLAN))
    at = broken
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    name = str(path[-1])
    found = faults(broken, SCHEMA)
    assert len(found) == 1 and found[0].endswith(f".{name}")
    with pytest.raises(PlanError) as caught:
        ir.loads(ir.Plan, json.dumps(broken), source="plan")
    assert name in caught.value.message
    assert found[0] in caught.value.message or "unknown field" in caught.value.message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("objective",), "both"),
        (("exit_scale",), "sideways"),
        (("weights",), "stolen"),
        (("schema",), 99),
        (("splits", 0, "multiplicity"), 0),
        (("splits", 0, "widths", 0), 0),
    ],
)
def test_schema_and_planner_refuse_the_same_values(path: tuple[Any, ...], value: Any) -> None:
    broken = json.loads(json.dumps(PLAN))
    at = broken
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert len(faults(broken, SCHEMA)) == 1
    with pytest.raises(PlanError):
        recount(ir.loads(ir.Plan, json.dumps(broken), source="plan"))


def test_every_field_of_a_plan_is_described() -> None:
    for name in ("Plan", "Split", "Budget", "Region", "RegionLayer", "Site"):
        fields = SCHEMA["$defs"][name]["properties"].items()
        silent = [field for field, rule in fields if "description" not in rule]
        assert set(silent) <= {"$schema", "note"}, name
