"""Rewriting: passes that swap submodules of the user's own module tree."""

from cerewrite.rewriter.engine import PASSES, Pass, PassResult, register
from cerewrite.rewriter.record import is_rewritten
from cerewrite.rewriter.rewrite import Rewritten, revert, rewrite
from cerewrite.rewriter.session import Change, Session

__all__ = [
    "PASSES",
    "Change",
    "Pass",
    "PassResult",
    "Rewritten",
    "Session",
    "is_rewritten",
    "register",
    "revert",
    "rewrite",
]
