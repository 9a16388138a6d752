"""Training: distillation, members' losses, what their spread is worth, a kernel monitor."""

from cerewrite.training.assess import assess
from cerewrite.training.callback import Callback
from cerewrite.training.diagnosing import Diagnosed, DiagnosticMonitor
from cerewrite.training.distill import Distilled, distill
from cerewrite.diagnostics.gram import gram
from cerewrite.training.member_loss import MemberLoss
from cerewrite.training.monitor import KernelMonitor, Reading
from cerewrite.training.uncertainty import Uncertain, Uncertainty

__all__ = [
    "Callback",
    "Diagnosed",
    "DiagnosticMonitor",
    "Distilled",
    "KernelMonitor",
    "MemberLoss",
    "Reading",
    "Uncertain",
    "Uncertainty",
    "assess",
    "distill",
    "gram",
]
