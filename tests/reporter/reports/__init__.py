"""Real reports of large models; `python -m benchmarks.reports` writes them anew."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

from cerewrite import ir

LARGE = ("resnet50", "vit_l_16")


@functools.cache
def stored(name: str) -> ir.Report:
    """One of them."""
    data = gzip.decompress((Path(__file__).parent / f"{name}.json.gz").read_bytes())
    return ir.loads(ir.Report, data.decode(), source=f"{name}.json.gz")
