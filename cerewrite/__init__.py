"""cerewrite: rewrite runs of wide layers into collegial ensembles, at the costs you have.

    analyze    nu, Var[log K] and every layer's correction      -> Analysis
    plan       members and widths within budgets; see also menu -> Plan
    apply      carry a plan out; revert takes it back           -> a module
    verify     check a rewritten module                         -> Verification
    convert    all of these in a row                            -> Conversion
    save, load, export_onnx, bench    keep the result, hand it on, time it

Results print as one line, show tables in a notebook, and have to_frame() and plot(); options are
in help(cerewrite.convert) and its neighbours. Importing this package does not import torch.

Example:
    >>> import cerewrite, torch
    >>> net = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
    >>> result = cerewrite.convert(net, torch.ones(2, 64), budget="params", allow="all", draws=8)
    >>> result.verification.passed, result.plan.planned.nu < result.plan.baseline.nu
    (True, True)
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
    UncorrectedError,
    UnknownOptionError,
    UsageError,
    VerificationError,
    ZeroKernelError,
)

if TYPE_CHECKING:
    from cerewrite.api.conversion import Conversion, convert
    from cerewrite.api.diagnosing import diagnose
    from cerewrite.api.menu import menu
    from cerewrite.api.racing import race
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
    "UncorrectedError",
    "UnknownOptionError",
    "UsageError",
    "VerificationError",
    "ZeroKernelError",
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
    "race",
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
    "race": "api.racing",
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
