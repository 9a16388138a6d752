from __future__ import annotations

import json
from pathlib import Path

from tests.cli.running import run


def test_landscape(model: Path) -> None:
    wanted = ("--region", "0", "--gain", "he", "--json", "map.json", "--html", "map.html")
    result = run(
        "landscape", "model.py", *wanted, "--budget", "memory=0.9x", "--estimator", "analytic"
    )
    assert result.exit_code == 0, result.output + result.stderr
    assert "<- best" in result.output and "memory at most" in result.output
    found = json.loads(Path("map.json").read_text())
    assert found["cost"] == "memory" and found["optimum"] in found["curve"]
    assert max(one["cost"] for one in found["curve"]) <= found["limit"] < found["original"]["cost"]
    assert Path("map.html").read_text().count('data-chart="map"') == 1
    wrong = run("landscape", "model.py", "--region", "nowhere", "--estimator", "analytic")
    assert wrong.exit_code == 2 and "no region 'nowhere'" in wrong.stderr
