"""Verification: is the rewritten model what the plan promised? Every check runs."""

from cerewrite.verifier.output_error import check_transfer, output_error
from cerewrite.verifier.verify import CHECKS, verify

__all__ = ["CHECKS", "check_transfer", "output_error", "verify"]
