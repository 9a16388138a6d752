"""A stranger's folder: whose code runs when it is opened."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hypothesis import strategies as st

import cerewrite
from benchmarks.reliability.arguments import MODEL
from benchmarks.reliability.files import good_files
from benchmarks.reliability.group import Counts, register
from benchmarks.reliability.sandbox import try_all
from cerewrite import output

PLANTED = "import os\nos.mkdir('ran')\n"
INSIDE = ("evil.py", "evil.py:build_model", "./evil.py", "x/../evil.py", "link.py", "model_ce.py")
OUTSIDE = ("../evil.py", "../../evil.py:build_model", "/dev/stdin", "~/evil.py", "../evil.py:a.b")
MODULES = (
    "os:abort",
    "evil:build_model",
    "pytest:main",
    "antigravity:fly",
    "this:s",
    "http.server:test",
)
SOURCES = (
    *INSIDE,
    *OUTSIDE,
    *MODULES,
    "",
    "evil.py:f()",
    "x.py\nimport os",
    "a;b",
    "\x1b[2J.py",
    5,
    None,
)


@register(
    "opening",
    tries="a folder with planted code beside, inside and in its model_ce.py, whose plan names any "
    "of it as the factory",
    promise="none of it is run: a factory runs only if you converted a model of it on this machine",
    limit="--trust runs the folder's model_ce.py, whatever it does, and importing model_ce.py in "
    "a script is trusting it; files that your own factory imports are yours to guard",
)
def opening(count: int) -> Counts:
    """Folders of strangers, opened without trust."""
    plan = json.loads(good_files()[output.PLAN])

    def prepare(path: Path, case: object) -> None:
        os.environ["CEREWRITE_CACHE"] = str(path.with_name("cache"))
        (path / "x").mkdir(parents=True, exist_ok=True)
        for name in ("evil.py", "model_ce.py", "../evil.py"):
            (path / name).write_text(PLANTED + MODEL)
        if not (path / "link.py").exists():
            (path / "link.py").symlink_to("evil.py")
        (path / output.PLAN).write_text(json.dumps({**plan, "source": case}))
        (path / output.WEIGHTS).write_bytes(good_files()[output.WEIGHTS])

    def attempt(path: Path) -> None:
        cerewrite.load(path)

    return try_all(st.sampled_from(SOURCES), prepare, attempt, min(count, len(SOURCES)))
