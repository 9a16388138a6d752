"""What no plan may hold: each violation is a typed error that names the field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cerewrite import ir
from cerewrite.errors import PlanError
from cerewrite.planning import recount

GOLDEN = Path(__file__).parents[1] / "planning" / "golden_plan.json"
TEXT = GOLDEN.read_text(encoding="utf-8")


def changed(where: str, value: Any) -> str:
    """The golden plan with another value in the place of one field."""
    data = json.loads(TEXT)
    at: Any = data
    steps: list[Any] = [int(i) if i else name for name, i in re.findall(r"(\w+)|\[(\d+)\]", where)]
    for step in steps[:-1]:
        at = at[step]
    at[steps[-1]] = value
    return json.dumps(data)


def refusal(text: str) -> str:
    with pytest.raises(PlanError) as caught:
        recount(ir.loads(ir.Plan, text, source="plan"))
    assert caught.value.advice
    return caught.value.message


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("schema", -1),
        ("schema", 0),
        ("scope", "nope"),
        ("scope", "auto"),
        ("objective", "third"),
        ("exit_scale", "sideways"),
        ("weights", None),
        ("measure", "m\x1b[2J"),
        ("fingerprint", "../x"),
        ("model", "a b"),
        ("seed", -1),
        ("seed", 2**64),
        ("gap", "large"),
        ("budgets[0].limit", "nan"),
        ("budgets[0].limit", "inf"),
        ("budgets[0].limit", -1),
        ("budgets[0].text", "a\nb"),
        ("splits[0].multiplicity", 0),
        ("splits[0].multiplicity", 10**6),
        ("splits[0].multiplicity", 2**63),
        ("splits[0].multiplicity", 10**400),
        ("splits[0].multiplicity", 2.5),
        ("splits[0].widths[1]", 0),
        ("splits[0].nu", -2),
        ("splits[0].nu", 10**400),
        ("planned.log_variance", "nan"),
        ("baseline.params", 2**60),
        ("regions[0].sites[0].rho", "nan"),
        ("regions[0].sites[0].v_aa", -1e-9),
        ("regions[0].sites[0].f_up", 1e61),
        ("regions[0].sites[0].width", 99),
        ("regions[0].sizes[0]", 0),
        ("regions[0].layers[0].target", 99),
        ("regions[0].layers[1].sources[0]", 99),
        ("regions[0].layers[0].groups", 7),
        ("regions[0].layers[0].kernel", 2**31),
        ("regions[0].layers[0].role", "middle"),
        ("regions[0].multiplicity", 7),
        ("inputs", "2,16"),
        ("source", "os system"),
        ("note", "\x07"),
    ],
)
def test_the_field_is_named(where: str, value: Any) -> None:
    message = refusal(changed(where, value))
    names = re.findall(r"\w+", where)
    assert message.startswith(f"plan.{names[0]}"), message
    assert names[-1] in message or where.startswith("regions[0].multiplicity"), message
    assert "\x1b" not in message and len(message) < 400


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (TEXT.replace('"nu": ', '"nu": 0.5, "nu": ', 1), "field 'nu' is given twice"),
        (TEXT.replace('"seed": ', '"seed": NaN, "x": ', 1), "NaN is no number of JSON"),
        (changed("seed", "@").replace('"@"', "9" * 5000), "plan.seed: expected int"),
        (changed("gap", "@").replace('"@"', "[" * 10**5 + "]" * 10**5), "at or after 'gap'"),
        (changed("note", "@").replace("@", "\\ud800"), "plan.note: expected text"),
        (changed("budgets", "@").replace("@", "\\ud800"), "plan.budgets: holds half a character"),
        (TEXT.replace('"nu"', '"\\ud800": 1, "nu"', 1), "unknown field '\\ud800'"),
        (changed("regions[0].sizes", [64]), "plan.regions[0].sizes: has 1 sizes for 2 classes"),
        (changed("regions[0].classes", ["a", "a"]), "plan.regions[0].classes: names a width"),
        (changed("regions[1].name", "block1"), "plan.regions[1]: 'block1' is there twice"),
        (changed("splits[0].multiplcity", 3), "plan.splits[0]: unknown field 'multiplcity'"),
        (changed("budgets[0].cost", "gold"), "plan.budgets[0].cost: 'gold' is no budget"),
        (changed("measure", "gold"), "plan.measure: 'gold' is no measure"),
        (changed("init", "gold"), "plan.init: 'gold' is no initialiser"),
        ("[" * 10**6, "nested more than 32 deep"),
        ("9" * 5000, "plan: expected an object"),
    ],
)
def test_what_json_alone_would_let_pass(text: str, name: str) -> None:
    assert name in refusal(text)


def test_what_a_plan_would_build_is_counted_in_whole_numbers() -> None:
    data = json.loads(TEXT)
    data["budgets"] = []
    data["splits"][0] |= {"multiplicity": 2**16, "widths": [2**31 - 1, 2**31 - 1]}
    message = refusal(json.dumps(data))
    count = int(message.partition(" parameters")[0].rpartition(" ")[2].replace(",", ""))
    assert count > 2**78 and "more than the 285,160 that are allowed" in message
    data["splits"][0] |= {"multiplicity": 100, "widths": [20, 20]}
    plan = ir.loads(ir.Plan, json.dumps(data), source="plan")
    message = refusal(json.dumps(data))
    needed = int(message.partition(" parameters")[0].rpartition(" ")[2].replace(",", ""))
    assert recount(plan, max_params=needed).planned.params == needed
    with pytest.raises(PlanError, match="--max-params"):
        recount(plan, max_params=needed - 1)


def test_a_region_may_not_have_more_than_the_whole() -> None:
    data = json.loads(TEXT)
    data["budgets"] = []
    data["baseline"]["params"] = 10
    data["splits"][0] |= {"multiplicity": 1, "widths": [5, 5]}
    assert refusal(json.dumps(data)).startswith("plan.baseline.params: 10, but the region")
