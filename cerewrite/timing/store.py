"""Measured times, kept between runs: once per machine, thread count, batch and geometry."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from cerewrite.runtime.cache import cache_folder


def machine() -> str:
    """What this machine is: processor, cores, torch.

    Example:
        >>> "torch" in machine()
        True
    """
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"


def default_path() -> Path:
    """``latency.json`` in the user's cache folder; see `cerewrite.runtime.cache.cache_folder`."""
    return cache_folder() / "latency.json"


class Store:
    """Nanoseconds by key, in a JSON file that is replaced whole.

    A file that cannot be read or written costs time, not correctness: it is measured again.

    Args:
        path: the file; `default_path` if not given.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or default_path()
        self._prefix = f"{machine()} | {torch.get_num_threads()} threads | "
        self._known: dict[str, float] = {}
        self._fresh = False
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = {str(key): float(value) for key, value in found.items()}

    def get(self, key: str, measure: Callable[[], float]) -> float:
        """The time under a key, measured if it is not known (nanoseconds)."""
        full = self._prefix + key
        if full not in self._known:
            self._known[full] = measure()
            self._fresh = True
        return self._known[full]

    def save(self) -> None:
        """Write what is new; other processes' entries are kept."""
        if not self._fresh:
            return
        with contextlib.suppress(OSError, ValueError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                found = json.loads(self._path.read_text(encoding="utf-8"))
                self._known = {**{str(k): float(v) for k, v in found.items()}, **self._known}
            with tempfile.NamedTemporaryFile(
                "w", dir=self._path.parent, suffix=".tmp", delete=False, encoding="utf-8"
            ) as draft:
                json.dump(self._known, draft, indent=1, sort_keys=True)
            os.replace(draft.name, self._path)
        self._fresh = False
