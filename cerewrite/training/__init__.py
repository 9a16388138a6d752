"""Training: distillation with resumable checkpoints, and a monitor of the tangent kernel."""

from cerewrite.training.distill import Distilled, distill
from cerewrite.training.kernel import gram
from cerewrite.training.monitor import KernelMonitor, Reading

__all__ = ["Distilled", "KernelMonitor", "Reading", "distill", "gram"]
