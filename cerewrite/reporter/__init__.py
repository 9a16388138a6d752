"""The report stage: what a run found out, for the terminal and as one HTML file."""

from cerewrite.reporter.first_screen import first_screen, print_first_screen
from cerewrite.reporter.html import (
    render_assessment,
    render_diagnosis,
    render_html,
    render_landscape,
    render_race,
)
from cerewrite.reporter.landscapes import landscape_lines
from cerewrite.reporter.node_data import node_data
from cerewrite.reporter.terminal import (
    print_analysis,
    print_assessment,
    print_compared_diagnoses,
    print_diagnosis,
    print_plan,
    print_race,
    print_report,
)

__all__ = [
    "first_screen",
    "landscape_lines",
    "node_data",
    "print_analysis",
    "print_assessment",
    "print_compared_diagnoses",
    "print_diagnosis",
    "print_first_screen",
    "print_plan",
    "print_race",
    "print_report",
    "render_assessment",
    "render_diagnosis",
    "render_html",
    "render_landscape",
    "render_race",
]
