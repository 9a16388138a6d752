"""Run the commands of docs/tour.md and put their output there; draw README's picture.

    python -m benchmarks.tour

Every block that begins with ``$ cerewrite`` keeps its command and gets what it prints now, on 100
columns. The commands run in one folder, in the order of the page.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tour.md"
PICTURE = ROOT / "docs" / "pictures" / "first_screen.svg"
BLOCK = re.compile(r"^```console\n\$ (cerewrite [^\n]*)\n.*?^```$", re.MULTILINE | re.DOTALL)
DRAWN = "convert examples/mlp_digits/model.py --gain he --out build/mlp"


def printed(command: str, folder: Path) -> str:
    """What a command prints, its errors too.

    Args:
        command: as it is typed, ``cerewrite`` included.
        folder: where it runs.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CEREWRITE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "cerewrite", *shlex.split(command)[1:]],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines = [line.rstrip() for line in done.stdout.splitlines() if not line.endswith(" ...")]
    return "\n".join(lines).strip("\n")


def draw(command: str, text: str) -> None:
    """The picture: a terminal of 80 columns with a command and what it printed.

    Fonts are the reader's own: nothing is loaded from another host.
    """
    console = Console(record=True, width=80, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text(f"$ {command}\n", "bold"), end="")
    console.print(Text(text))
    made = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="cerewrite"), flags=re.DOTALL)
    made = re.sub(r"Fira Code,?\s*", "", made)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text("\n".join(line.rstrip() for line in made.splitlines()) + "\n")


def main() -> None:
    """Run all commands of the page, and write page and picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "examples").symlink_to(ROOT / "examples")

        def run(match: re.Match[str]) -> str:
            text = printed(match[1], folder)
            print(match[1], flush=True)
            if DRAWN in match[1]:
                draw(match[1], text)
            return f"```console\n$ {match[1]}\n{text}\n```"

        PAGE.write_text(BLOCK.sub(run, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
