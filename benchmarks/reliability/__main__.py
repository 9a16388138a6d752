"""Run every group and write docs/RELIABILITY.md: python -m benchmarks.reliability [--cases N]."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.reliability.group import GROUPS, Counts

DOCS = Path(__file__).resolve().parents[2] / "docs"
COLUMNS = ("cases", "carried out", "refused", "untyped", "hangs", "writes", "slowest")
TITLE = """\
# Reliability

What hostile files, requests and neighbours can do, tried and counted by
`python -m benchmarks.reliability`. Files are good ones with one to three edits drawn by hypothesis
(nesting, huge and senseless numbers, fields missing, doubled and unknown, markup, escape sequences,
paths, bytes), each tried in a process that is limited in time and memory and watched for writes,
processes and connections. A case is carried out or refused by an error of `cerewrite/errors.py`;
anything else is counted as untyped.
"""
OPENED = """\
## What runs when a folder is opened

`cerewrite verify`, `export`, `bench` and `cerewrite.load` of a folder run this, and nothing else:

* The plan, the weights and the report are data. None of them is code, none is unpickled.
* The original's factory, which `plan.json` names in `source` (`../model.py:build_model`): only if
  you converted a model of that very file, or of that name in an importable module, on this machine
  before, and never if it lies in the folder. What you converted is kept as hashes in
  `$CEREWRITE_CACHE/factories`, or in your cache folder. Otherwise the command stops and says so.
* `--model path/model.py:factory` (in Python `load(folder, model)`) gives the original by hand; then
  nothing of the folder runs.
* `--trust` (in Python `load(folder, trust=True)`) runs the folder's `model_ce.py`, whatever it
  does.

A training script that imports `model_ce.py` runs it, as with any module that it imports.
"""


def document(found: Mapping[str, Counts]) -> str:
    """The page."""
    lines = [TITLE, f"| group | {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * len(COLUMNS)}"]
    for name, counts in found.items():
        shown = (
            *(counts.cases, counts.accepted, counts.refused),
            *(len(counts.untyped), counts.hangs, counts.writes),
        )
        lines.append(f"| {name} | {' | '.join(map(str, shown))} | {counts.seconds:.1f} s |")
    for name in found:
        group = GROUPS[name]
        lines += ["", f"**{name}.** Tried: {group.tries}. Promised: {group.promise}."]
        lines.append(f"Not promised: {group.limit}.")
    return "\n".join([*lines, "", OPENED])


def main() -> None:
    """Run the groups that are asked for; the others keep what they had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="cases per group")
    parser.add_argument("groups", nargs="*", help="run these alone")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    store = DOCS / "reliability.json"
    known = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    for name in asked.groups or GROUPS:
        counts = GROUPS[name].run(asked.cases)
        known[name] = asdict(counts)
        print(name, counts, flush=True)
    store.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    found = {
        name: Counts(**{**known[name], "untyped": tuple(known[name]["untyped"])})
        for name in sorted(known)
    }
    (DOCS / "RELIABILITY.md").write_text(document(found), encoding="utf-8")


if __name__ == "__main__":
    main()
