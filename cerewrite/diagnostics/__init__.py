"""Diagnostics of trainability: one file and one registration each."""

from cerewrite.diagnostics.base import DIAGNOSTICS, Diagnostic, NotApplicableError, Passes, Reading
from cerewrite.diagnostics.gram import gram
from cerewrite.diagnostics.material import Material
from cerewrite.diagnostics.run import diagnose

__all__ = [
    "DIAGNOSTICS",
    "Diagnostic",
    "Material",
    "NotApplicableError",
    "Passes",
    "Reading",
    "diagnose",
    "gram",
]
