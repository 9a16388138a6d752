"""Frozen data: what the stages hand to each other."""

from cerewrite.ir.exported import Export, Parity
from cerewrite.ir.graph import Layer, Op, PerChannel, Ref, TracedModel, WidthClass
from cerewrite.ir.lengths import Length
from cerewrite.ir.measured import Estimate, LayerEstimate, Measures, RegionEstimate
from cerewrite.ir.outcomes import Check, Promise, Rejection, Verification
from cerewrite.ir.profile import BlockTimes, Profile, SavedActivations
from cerewrite.ir.regions import Region, RegionLayer, Role, Site
from cerewrite.ir.results import (
    EXIT_SCALES,
    SCHEMA,
    WEIGHT_SOURCES,
    Alternative,
    Analysis,
    Budget,
    Figures,
    Plan,
    Report,
    ScopeFindings,
    Split,
)
from cerewrite.ir.scopes import ScopeOutcome
from cerewrite.ir.serial import dumps, encode, loads
from cerewrite.ir.timing import Forecast, Timing

__all__ = [
    "EXIT_SCALES",
    "SCHEMA",
    "WEIGHT_SOURCES",
    "Alternative",
    "Analysis",
    "BlockTimes",
    "Budget",
    "Check",
    "Estimate",
    "Export",
    "Figures",
    "Forecast",
    "Layer",
    "LayerEstimate",
    "Length",
    "Measures",
    "Op",
    "Parity",
    "PerChannel",
    "Plan",
    "Profile",
    "Promise",
    "Ref",
    "Region",
    "RegionEstimate",
    "RegionLayer",
    "Rejection",
    "Report",
    "Role",
    "SavedActivations",
    "ScopeFindings",
    "ScopeOutcome",
    "Site",
    "Split",
    "Timing",
    "TracedModel",
    "Verification",
    "WidthClass",
    "dumps",
    "encode",
    "loads",
]
