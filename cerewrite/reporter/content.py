"""Which sections an analysis, a plan and a report consist of, and in which order."""

from __future__ import annotations

from dataclasses import replace

from cerewrite import ir
from cerewrite.reporter.analysed import assumptions, headline, layers, refusals, regions, rejections
from cerewrite.reporter.measured import TITLES, by_region
from cerewrite.reporter.planned import before_and_after, compared_scopes, menu, request, splits
from cerewrite.reporter.proved import (
    alarms,
    checks,
    exported,
    kept_promise,
    promised,
    run_facts,
)
from cerewrite.reporter.section import Section
from cerewrite.reporter.timed import slower, timings


def at_plan(report: ir.Report) -> ir.Report:
    """The report with its analysis at the plan's scope, where it covers several."""
    analysis, plan = report.analysis, report.plan
    if plan is None or plan.scope not in {item.scope for item in analysis.scopes}:
        return report
    return replace(report, analysis=analysis.at_scope(plan.scope))


def analysis_sections(analysis: ir.Analysis, *, full: bool) -> list[Section]:
    """Headline, layers, regions, refusals and assumptions of an analysis."""
    return [
        headline(analysis),
        layers(analysis, full=full),
        regions(analysis, full=full),
        *rejections(analysis.rejections, full=full),
        *assumptions(analysis),
    ]


def plan_sections(
    plan: ir.Plan, analysis: ir.Analysis | None = None, *, full: bool
) -> list[Section]:
    """The request and its range, splits, refusals, and the figures before and after."""
    return [
        *menu(plan),
        request(plan),
        *compared_scopes(plan),
        splits(plan, analysis, full=full),
        *by_region(plan, analysis, full=full),
        *rejections(plan.rejections, full=full),
        before_and_after(plan),
    ]


def report_sections(report: ir.Report, *, full: bool) -> list[Section]:
    """Everything that a run found out, the conclusion last."""
    analysis, plan = report.analysis, report.plan
    sections = [headline(analysis), layers(analysis, full=full)]
    if plan is None or full:
        sections.append(regions(analysis, full=full))
    if plan is not None:
        sections += [
            *menu(plan),
            request(plan),
            *compared_scopes(plan),
            splits(plan, analysis, full=full),
        ]
        sections += by_region(plan, analysis, full=full)
    sections += [*rejections(refusals(analysis, plan), full=full), *assumptions(analysis)]
    if report.verification is not None:
        sections.append(checks(report.verification))
    if report.export is not None:
        sections.append(exported(report.export))
    sections += timings(report)
    sections += run_facts(report, full=full)
    if plan is not None:
        last, failures = before_and_after(plan), alarms(report)
        lines = failures + slower(report) + kept_promise(report) + last.lines
        sections.append(replace(last, lines=lines, failed=bool(failures)))
    return sections


def alarmed(report: ir.Report) -> tuple[str, ...]:
    """What must be read before anything else: failures, and engines that run the model slower."""
    return alarms(report) + slower(report)


def page_sections(report: ir.Report) -> list[Section]:
    """What a page says beside its tree, which holds layers, splits and refusals row by row.

    With a plan, the figures of the whole model stand under before and after alone.
    """
    analysis, plan = report.analysis, report.plan
    first = headline(analysis)
    if plan is None:
        sections = [first, regions(analysis, full=True)]
    else:
        facts = tuple(fact for fact in first.facts if fact[0] not in ("size", *TITLES))
        summary = before_and_after(plan, analysis)
        sections = [
            replace(summary, lines=summary.lines[1:]),  # the claim heads the page
            *menu(plan),
            request(plan),
            *compared_scopes(plan),
            *promised(report),
            *by_region(plan, analysis, full=True),
            replace(first, facts=facts),
        ]
    if report.verification is not None:
        sections.append(checks(report.verification))
    if report.export is not None:
        sections.append(exported(report.export))
    sections += timings(report)
    sections += [*rejections(refusals(analysis, plan), full=True), *assumptions(analysis)]
    sections += run_facts(report, full=True)
    return sections
