"""cerewrite: rewrite runs of wide layers into collegial ensembles.

One verb per stage: `analyze`, `plan`, `apply`, `verify`, `export_onnx`; `convert` runs them all.
Importing this package does not import torch; the first verb does.

Example:
    >>> import cerewrite
    >>> cerewrite.UsageError.exit_code
    2
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cerewrite.errors import (
    AnalysisError,
    CerewriteError,
    EndedError,
    ExportError,
    InfeasibleBudgetError,
    LoadError,
    NoClosedFormError,
    NotFiniteError,
    NothingGainedError,
    OutputError,
    PlanError,
    RewriteError,
    ShortOfMemoryError,
    StalePlanError,
    TargetTakenError,
    TraceError,
    TrainingError,
    UnknownOptionError,
    UsageError,
    VerificationError,
)

if TYPE_CHECKING:
    from cerewrite.api.conversion import Conversion, convert
    from cerewrite.api.diagnosing import diagnose
    from cerewrite.api.menu import menu
    from cerewrite.api.saving import load, save
    from cerewrite.api.serving import export_triton
    from cerewrite.api.speed import bench
    from cerewrite.api.stages import analyze, apply, export_onnx, plan, revert, verify
    from cerewrite.frontend.loading import build
    from cerewrite.ir import Analysis, Plan, Report
    from cerewrite.rewriting.members import Members, members
    from cerewrite.runtime.clock import Clock
    from cerewrite.training.assess import assess
    from cerewrite.training.distill import distill
    from cerewrite.training.member_loss import MemberLoss
    from cerewrite.training.uncertainty import Uncertainty

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "AnalysisError",
    "CerewriteError",
    "Clock",
    "Conversion",
    "EndedError",
    "ExportError",
    "InfeasibleBudgetError",
    "LoadError",
    "MemberLoss",
    "Members",
    "NoClosedFormError",
    "NotFiniteError",
    "NothingGainedError",
    "OutputError",
    "Plan",
    "PlanError",
    "Report",
    "RewriteError",
    "ShortOfMemoryError",
    "StalePlanError",
    "TargetTakenError",
    "TraceError",
    "TrainingError",
    "Uncertainty",
    "UnknownOptionError",
    "UsageError",
    "VerificationError",
    "__version__",
    "analyze",
    "apply",
    "assess",
    "bench",
    "build",
    "convert",
    "diagnose",
    "distill",
    "export_onnx",
    "export_triton",
    "load",
    "members",
    "menu",
    "plan",
    "revert",
    "save",
    "verify",
]

_HOMES = {
    "Analysis": "ir",
    "Clock": "runtime.clock",
    "Conversion": "api.conversion",
    "MemberLoss": "training",
    "Members": "rewriting",
    "Plan": "ir",
    "Report": "ir",
    "Uncertainty": "training",
    "assess": "training",
    "bench": "api.speed",
    "build": "frontend.loading",
    "convert": "api.conversion",
    "diagnose": "api.diagnosing",
    "distill": "training",
    "export_triton": "api.serving",
    "load": "api.saving",
    "members": "rewriting",
    "menu": "api.menu",
    "save": "api.saving",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'cerewrite' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"cerewrite.{_HOMES.get(name, 'api.stages')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
