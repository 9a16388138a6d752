"""The report stage: what a run found out, for the terminal and as one HTML file."""

from cerewrite.reporter.html import render_html
from cerewrite.reporter.terminal import print_analysis, print_plan, print_report

__all__ = ["print_analysis", "print_plan", "print_report", "render_html"]
