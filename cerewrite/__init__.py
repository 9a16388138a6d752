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
    ExportError,
    InfeasibleBudgetError,
    LoadError,
    NoClosedFormError,
    NothingGainedError,
    OutputError,
    PlanError,
    RewriteError,
    StalePlanError,
    TraceError,
    TrainingError,
    UnknownOptionError,
    UsageError,
    VerificationError,
)

if TYPE_CHECKING:
    from cerewrite.api.conversion import Conversion, convert
    from cerewrite.api.menu import menu
    from cerewrite.api.saving import load, save
    from cerewrite.api.serving import export_triton
    from cerewrite.api.speed import bench
    from cerewrite.api.stages import analyze, apply, export_onnx, plan, revert, verify
    from cerewrite.frontend.loading import build
    from cerewrite.ir import Analysis, Plan, Report
    from cerewrite.runtime.clock import Clock
    from cerewrite.training.distill import distill

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "AnalysisError",
    "CerewriteError",
    "Clock",
    "Conversion",
    "ExportError",
    "InfeasibleBudgetError",
    "LoadError",
    "NoClosedFormError",
    "NothingGainedError",
    "OutputError",
    "Plan",
    "PlanError",
    "Report",
    "RewriteError",
    "StalePlanError",
    "TraceError",
    "TrainingError",
    "UnknownOptionError",
    "UsageError",
    "VerificationError",
    "__version__",
    "analyze",
    "apply",
    "bench",
    "build",
    "convert",
    "distill",
    "export_onnx",
    "export_triton",
    "load",
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
    "Plan": "ir",
    "Report": "ir",
    "bench": "api.speed",
    "build": "frontend.loading",
    "convert": "api.conversion",
    "distill": "training",
    "export_triton": "api.serving",
    "load": "api.saving",
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
