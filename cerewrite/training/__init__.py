"""Training a student after a teacher: a plain loop with early stop and resumable checkpoints."""

from cerewrite.training.distill import Distilled, distill

__all__ = ["Distilled", "distill"]
