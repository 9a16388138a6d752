"""Measured speed: original against rewritten, in every engine that can run both."""

from cerewrite.bencher.bench import bench
from cerewrite.bencher.engines import ENGINES

__all__ = ["ENGINES", "bench"]
