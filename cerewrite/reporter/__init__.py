"""The report stage: what a run found out, for the terminal and as one HTML file."""

from cerewrite.reporter.first_screen import first_screen, print_first_screen
from cerewrite.reporter.html import (
    render_assessment,
    render_diagnosis,
    render_html,
    render_landscape,
)
from cerewrite.reporter.landscape_chart import landscape_lines
from cerewrite.reporter.terminal import (
    print_analysis,
    print_assessment,
    print_compared_diagnoses,
    print_diagnosis,
    print_plan,
    print_report,
)

__all__ = [
    "first_screen",
    "landscape_lines",
    "print_analysis",
    "print_assessment",
    "print_compared_diagnoses",
    "print_diagnosis",
    "print_first_screen",
    "print_plan",
    "print_report",
    "render_assessment",
    "render_diagnosis",
    "render_html",
    "render_landscape",
]
