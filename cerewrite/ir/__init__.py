"""Frozen data: what the stages hand to each other."""

from cerewrite.ir.design import Design, Designed
from cerewrite.ir.exported import Export, Parity
from cerewrite.ir.graph import Layer, Op, PerChannel, Ref, TracedModel, WidthClass
from cerewrite.ir.inputs import Inputs, Output
from cerewrite.ir.lengths import Length
from cerewrite.ir.measured import Estimate, LayerEstimate, Measured, Measures, RegionEstimate
from cerewrite.ir.menu import MenuRow, RegionTimes, StepProfile
from cerewrite.ir.outcomes import Check, Rejection, Verification
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
from cerewrite.ir.serial import JSON, dumps, encode, loads
from cerewrite.ir.timing import Forecast, Timing

__all__ = [
    "EXIT_SCALES",
    "JSON",
    "SCHEMA",
    "WEIGHT_SOURCES",
    "Alternative",
    "Analysis",
    "BlockTimes",
    "Budget",
    "Check",
    "Design",
    "Designed",
    "Estimate",
    "Export",
    "Figures",
    "Forecast",
    "Inputs",
    "Layer",
    "LayerEstimate",
    "Length",
    "Measured",
    "Measures",
    "MenuRow",
    "Op",
    "Output",
    "Parity",
    "PerChannel",
    "Plan",
    "Profile",
    "Ref",
    "Region",
    "RegionEstimate",
    "RegionLayer",
    "RegionTimes",
    "Rejection",
    "Report",
    "Role",
    "SavedActivations",
    "ScopeFindings",
    "ScopeOutcome",
    "Site",
    "Split",
    "StepProfile",
    "Timing",
    "TracedModel",
    "Verification",
    "WidthClass",
    "dumps",
    "encode",
    "loads",
]
