"""Rewriting: passes that swap submodules of the user's own module tree."""

from cerewrite.rewriting.engine import (
    PASSES,
    Pass,
    PassResult,
    Phase,
    default_passes_with,
    register,
)
from cerewrite.rewriting.members import Members, members
from cerewrite.rewriting.record import draw_inputs, is_rewritten
from cerewrite.rewriting.rewrite import Rewritten, renamed, revert, rewrite
from cerewrite.rewriting.session import Change, Session

__all__ = [
    "PASSES",
    "Change",
    "Members",
    "Pass",
    "PassResult",
    "Phase",
    "Rewritten",
    "Session",
    "default_passes_with",
    "draw_inputs",
    "is_rewritten",
    "members",
    "register",
    "renamed",
    "revert",
    "rewrite",
]
