"""How the members' weights are drawn: one file per distribution."""

from cerewrite.initialisers.base import (
    INITIALISERS,
    Custom,
    Initialiser,
    Original,
    custom_name,
    find_initialiser,
)

__all__ = [
    "INITIALISERS",
    "Custom",
    "Initialiser",
    "Original",
    "custom_name",
    "find_initialiser",
]
