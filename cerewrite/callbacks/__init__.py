"""What to call from a training loop: a monitor of the tangent kernel."""

from cerewrite.callbacks.kernel import gram
from cerewrite.callbacks.monitor import KernelMonitor, Reading

__all__ = ["KernelMonitor", "Reading", "gram"]
