"""Imports go down only, in no cycles; torch, onnx and click stay where they belong."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import pytest

from tests.conftest import ROOT

LEVELS = (
    ("errors",),
    ("registry", "runtime"),
    ("ir",),
    ("nn", "initialisers", "losses"),
    ("kernel",),
    ("ops",),
    ("estimators", "planning"),
    ("frontend", "analysis"),
    ("output", "rewriting"),
    # diagnostics: above frontend and analysis, which they read; below training, whose callbacks
    # run them. They print nothing: the reporter meets them through ir/diagnosed.py.
    ("passes", "verifier", "exporter", "reporter", "diagnostics"),
    ("timing", "training"),
    ("api",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

TORCH_FREE = ("errors", "registry", "ir", "planning")
HOMES = {
    "onnx": ("exporter", "verifier"),
    "onnx_ir": ("exporter", "verifier"),
    "onnxruntime": ("exporter", "verifier"),
    "onnxscript": ("exporter",),
    "click": ("cli",),
    "rich": ("cli", "reporter", "training"),
    "safetensors": ("output", "training"),
}


@dataclass(frozen=True)
class Import:
    """One import statement: the file it is in, what it names, whether it runs on import."""

    file: Path
    module: str
    target: str
    eager: bool

    @property
    def where(self) -> str:
        return f"{self.file.relative_to(ROOT)} imports {self.target}"


def files() -> list[Path]:
    return sorted([*ROOT.glob("cerewrite/**/*.py"), *ROOT.glob("passes/**/*.py")])


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file) for file in files()}


def stage(module: str) -> str:
    """``cerewrite.frontend.tracing.ladder`` belongs to ``frontend``; __main__ to itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "cerewrite" and len(parts) > 1 else parts[0]


def imports_of(file: Path) -> Iterator[Import]:
    """Every import of a file, those inside functions and under TYPE_CHECKING as not eager."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            base = node.module or ""
            inner = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if name in MODULES else base for name in inner]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(file, module_name(file), target, id(node) not in lazy)


@functools.cache
def imports() -> tuple[Import, ...]:
    return tuple(item for file in files() for item in imports_of(file))


def test_every_module_has_a_level() -> None:
    stages = {stage(module) for module in MODULES}
    assert stages - {"cerewrite", "__main__"} <= set(LEVEL)


def test_imports_go_down_only() -> None:
    wrong = []
    for item in imports():
        if item.target.split(".")[0] not in ("cerewrite", "passes"):
            continue
        source, target = stage(item.module), stage(item.target)
        if source == target or source in ("__main__", "cerewrite") or target == "cerewrite":
            continue
        if LEVEL[source] <= LEVEL[target]:
            wrong.append(item.where)
    assert not wrong


def test_no_cycles_between_modules() -> None:
    graph = nx.DiGraph()
    graph.add_edges_from((i.module, i.target) for i in imports() if i.eager and i.target in MODULES)
    # `from package import submodule` inside a package runs the package first, which is no cycle
    graph.remove_edges_from([(a, b) for a, b in graph.edges if a.startswith(f"{b}.")])
    assert not list(nx.simple_cycles(graph))


def test_libraries_stay_at_home() -> None:
    wrong = [
        item.where
        for item in imports()
        if (homes := HOMES.get(item.target.split(".")[0])) and stage(item.module) not in homes
    ]
    assert not wrong


def test_torch_free_stages_import_no_torch_at_all() -> None:
    wrong = [
        i.where for i in imports() if stage(i.module) in TORCH_FREE and i.target[:5] == "torch"
    ]
    assert not wrong


def loaded_after(code: str) -> set[str]:
    """Top-level packages in ``sys.modules`` after a fresh interpreter has run ``code``."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import cerewrite; cerewrite.CerewriteError",
        "import " + ", ".join(f"cerewrite.{name}" for name in TORCH_FREE),
        "import cerewrite; cerewrite.plan, cerewrite.convert, cerewrite.load, cerewrite.Plan",
        "import cerewrite.frontend.loading, cerewrite.output, cerewrite.cli",
    ],
)
def test_importing_needs_no_torch(code: str) -> None:
    assert not loaded_after(code) & {"torch", "onnx", "onnxruntime"}


COMMANDS = [
    ["--help"],
    ["convert", "--help"],
    ["--version"],
    ["convrt"],
    ["convert"],
    ["convert", "model.py", "--objective", "both"],
    ["convert", "model.py", "--input", "1,3,x"],
    ["convert", "model.py", "--budget", "parms"],
    ["convert", "model.py", "--onnx"],
    ["convert", "no/such/model.py"],
    ["plan", "examples/resnet50/model.py", "--budget", "params=-1"],
]


def test_help_and_usage_errors_need_no_torch() -> None:
    code = (
        "from cerewrite.cli import main\n"
        f"for arguments in {COMMANDS!r}:\n"
        "    try: main(arguments)\n"
        "    except SystemExit as end: print(end.code)\n"
        "    assert 'torch' not in sys.modules, arguments"
    )
    assert "torch" not in loaded_after(code)
