"""From a traced model to an `Analysis`."""

from cerewrite.analysis.analyze import analyze
from cerewrite.analysis.kept import keep
from cerewrite.analysis.regions import find_regions
from cerewrite.analysis.scopes import AUTO, SCOPES

__all__ = ["AUTO", "SCOPES", "analyze", "find_regions", "keep"]
