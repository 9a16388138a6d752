"""Verification: is the rewritten model what the plan promised? Every check runs."""

from cerewrite.verifier.verify import CHECKS, verify

__all__ = ["CHECKS", "verify"]
