"""From a traced model to an `Analysis`."""

from cerewrite.analysis.analyze import analyze
from cerewrite.analysis.regions import find_regions

__all__ = ["analyze", "find_regions"]
