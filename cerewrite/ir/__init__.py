"""Frozen data: what the stages hand to each other."""

from cerewrite.ir.answers import Explanation, Registered, Setting, Written
from cerewrite.ir.design import Design, Designed
from cerewrite.ir.exits import EXIT_SCALES, exit_factor
from cerewrite.ir.exported import Export, Parity
from cerewrite.ir.graph import Layer, Op, PerChannel, Ref, TracedModel, WidthClass
from cerewrite.ir.groups import Bundle, bundles, class_groups
from cerewrite.ir.inputs import Inputs, Output
from cerewrite.ir.lengths import Length
from cerewrite.ir.measured import Estimate, LayerEstimate, Measured, Measures, RegionEstimate
from cerewrite.ir.menu import MenuRow, RegionTimes, StepProfile
from cerewrite.ir.outcomes import Check, Promise, Rejection, Verification
from cerewrite.ir.profile import BlockTimes, Profile, SavedActivations
from cerewrite.ir.ranges import LARGEST_COST, LARGEST_SEED, LARGEST_SIZE, MOST_MEMBERS
from cerewrite.ir.regions import Region, RegionLayer, Role, Site
from cerewrite.ir.results import (
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
from cerewrite.ir.serial import JSON, dumps, encode, loads, parse, validate
from cerewrite.ir.timing import Forecast, Timing

__all__ = [
    "EXIT_SCALES",
    "JSON",
    "LARGEST_COST",
    "LARGEST_SEED",
    "LARGEST_SIZE",
    "MOST_MEMBERS",
    "SCHEMA",
    "WEIGHT_SOURCES",
    "Alternative",
    "Analysis",
    "BlockTimes",
    "Budget",
    "Bundle",
    "Check",
    "Design",
    "Designed",
    "Estimate",
    "Explanation",
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
    "Promise",
    "Ref",
    "Region",
    "RegionEstimate",
    "RegionLayer",
    "RegionTimes",
    "Registered",
    "Rejection",
    "Report",
    "Role",
    "SavedActivations",
    "ScopeFindings",
    "ScopeOutcome",
    "Setting",
    "Site",
    "Split",
    "StepProfile",
    "Timing",
    "TracedModel",
    "Verification",
    "WidthClass",
    "Written",
    "bundles",
    "class_groups",
    "dumps",
    "encode",
    "exit_factor",
    "loads",
    "parse",
    "validate",
]
