"""A report as one HTML file: a tree of the model's modules, what was chosen, what was proved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from cerewrite import ir
from cerewrite.ir.assessed import Assessment
from cerewrite.ir.diagnosed import Diagnosis
from cerewrite.ir.raced import Race
from cerewrite.planning import Landscape, Spot
from cerewrite.reporter.assessed import assessment_sections
from cerewrite.reporter.content import alarmed, at_plan, page_sections
from cerewrite.reporter.diagnosed import comparison_sections, diagnosis_sections
from cerewrite.reporter.elements import anchors, pairs_html, section_html, sections_html
from cerewrite.reporter.figures import members, number, with_error
from cerewrite.reporter.landscapes import considered, landscape_data, mapped_regions
from cerewrite.reporter.measured import title
from cerewrite.reporter.page import page_html
from cerewrite.reporter.planned import MENU, claim
from cerewrite.reporter.raced import race_data, race_sections
from cerewrite.reporter.tree import Row, module_rows
from cerewrite.reporter.treegrid import tree_html


def render_html(report: ir.Report) -> str:
    """The report as the text of one self-contained HTML file.

    A tree of the model's modules, before and after on the same rows, whose layers open pages of
    their own; what changed; the front of plans; what was promised against what was measured;
    checks, export and timings. Whatever came from the user is escaped.

    Args:
        report: what to render.

    Returns:
        A whole HTML document.
    """
    report = at_plan(report)
    analysis, plan = report.analysis, report.plan
    rows = module_rows(analysis, plan)
    maps = mapped_regions(analysis, plan)
    regions = {name: f"region{index}" for index, name in enumerate(maps)}
    pages = {layer.name: f"layer{index}" for index, layer in enumerate(analysis.layers)}
    data: dict[str, Any] = {
        "signal": _signal(analysis),
        "front": _front(plan) if plan is not None else None,
        "maps": {regions[name]: landscape_data(*found) for name, found in maps.items()},
    }
    sections = page_sections(report)
    titles = ["Modules", *(section.title for section in sections)]
    links = "".join(
        f'<li><a href="#{anchor}">{escape(name)}</a></li>'
        for anchor, name in zip(anchors(titles), titles, strict=True)
    )
    charts = {MENU: _front_figure(data["front"])}
    body = [
        *(f'<p class="call">{escape(line)}</p>' for line in alarmed(report)),
        f'<p class="claim">{escape(claim(plan))}</p>' if plan is not None else "",
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>',
        tree_html(rows, pages, "step" if analysis.step else "call"),
        sections_html(sections, charts),
        f'<div id="layers">{"".join(_pages(rows, pages, maps, regions))}</div></main>',
        '<dialog id="page"><button id="close" type="button">Close</button></dialog>',
    ]
    footer = f"cerewrite, report schema {report.schema}; model {analysis.fingerprint}"
    return page_html(analysis.model, "\n".join(body), footer, data)


def render_assessment(found: Assessment) -> str:
    """What members say on labelled data as the text of one self-contained HTML file.

    Args:
        found: what to render.
    """
    body = f"<main>{sections_html(assessment_sections(found))}</main>"
    return page_html(found.model, body, f"cerewrite, assessment schema {found.schema}")


def render_diagnosis(found: tuple[Diagnosis, ...], names: tuple[str, ...] = ()) -> str:
    """Diagnoses as the text of one self-contained HTML file.

    Args:
        found: one, or two that are compared.
        names: what the two are called.
    """
    sections = [part for one in found for part in diagnosis_sections(one, full=True)]
    if len(found) == 2:
        sections = comparison_sections((found[0], found[1]), (names[0], names[1])) + sections
    footer = f"cerewrite, diagnosis schema {found[0].schema}"
    return page_html(found[0].model, f"<main>{sections_html(sections)}</main>", footer)


def render_landscape(mapped: Landscape) -> str:
    """The landscape of one region as the text of one self-contained HTML file.

    Args:
        mapped: what to render.

    Returns:
        A whole HTML document.
    """
    body = _map_figure("region0") + sections_html([considered(mapped)])
    data = {"maps": {"region0": landscape_data(mapped)}}
    return page_html(f"Landscape of {mapped.region}", f"<main>{body}</main>", "cerewrite", data)


def render_race(race: Race) -> str:
    """A race as the text of one self-contained HTML file: its picture, its tables.

    Args:
        race: what to render.

    Returns:
        A whole HTML document.
    """
    points = race_data(race)
    charts = "".join(
        _figure("race", f"Held-out loss over {by}, one line a design.", f' data-by="{by}"')
        for by in (("steps", "seconds") if points else ())
    )
    body = f"<main>{charts}{sections_html(race_sections(race))}</main>"
    data = {"race": points} if points else None
    return page_html(race.model, body, f"cerewrite, race schema {race.schema}", data)


def _figure(kind: str, caption: str, more: str = "") -> str:
    return (
        f'<figure data-chart="{kind}"{more}><figcaption>{escape(caption)}</figcaption>'
        '<div class="plot"></div></figure>'
    )


def _map_figure(region: str) -> str:
    caption = (
        "Landscape: darker is smaller. The line is the most members that the limit allows, and "
        "the lower panel the measure along it; the best on it regards no other limit."
    )
    return _figure("map", caption, f' data-map="{region}"')


def _front_figure(front: dict[str, Any] | None) -> str:
    return (
        ""
        if not front
        else _figure("front", "One point a plan, as ratios to the original; lower left is better.")
    )


def _front(plan: ir.Plan) -> dict[str, Any] | None:
    """The menu as points: the measure against the step, or the parameters where none was timed."""
    rows = [row for row in plan.menu if not row.refused]
    timed = all(row.step is not None for row in rows)
    points = [{"name": "", "x": 1.0, "y": 1.0, "what": "as it is", "tip": "the original"}]
    for row in rows:
        here = row.step if timed and row.step is not None else row.params
        listed = [f"{name}: {members(ir.Design(m, n))}" for name, m, n in row.designs]
        more = [f"and {len(listed) - 12} more"] if len(listed) > 12 else []
        head = f"{row.option}: {row.measure:.3f}x at {here:.2f}x"
        what = "chosen" if row.chosen else "another"
        tip = "\n".join([head, *listed[:12], *more])
        points.append({"name": row.name, "x": here, "y": row.measure, "what": what, "tip": tip})
    cost = "training step" if timed else "parameters"
    across, up = f"{cost}, after over before", f"{title(plan)}, after over before"
    return {"points": points, "across": across, "up": up} if rows else None


def _signal(analysis: ir.Analysis) -> dict[str, Any]:
    layers = analysis.layers
    return {
        "names": [layer.name for layer in layers],
        "up": [layer.forward_share for layer in layers],
        "down": [layer.backward_share for layer in layers],
    }


def _pages(
    rows: Sequence[Row],
    pages: dict[str, str],
    maps: dict[str, tuple[Landscape, Spot | None]],
    regions: dict[str, str],
) -> Iterator[str]:
    """A page for every layer, and one for every region, which its layers share."""
    for row in rows:
        if row.layer is not None:
            yield _layer_page(row, row.layer, pages[row.name], regions.get(row.region, ""))
    for name, (mapped, chosen) in maps.items():
        yield (
            f'<article id="{regions[name]}" class="region">{_map_figure(regions[name])}'
            f"{section_html(considered(mapped, chosen), f'{regions[name]}-table')}</article>"
        )


def _layer_page(row: Row, layer: ir.LayerEstimate, page: str, region: str) -> str:
    facts = [
        ("kappa", with_error(layer.kappa, layer.kappa_stderr)),
        ("d log K / d log forward moment", number(layer.forward_share)),
        ("d log K / d log backward moment", number(layer.backward_share)),
        ("scatter of one unit", f"{number(layer.v_aa)} forward, {number(layer.v_bb)} backward, "
         f"{number(layer.v_ab)} of both"),
        ("spatial factor", number(layer.rho)),
        ("region", row.region or "none: its width is not to be split"),
        ("graph", f"{', '.join(row.nodes) or '-'}, seen by {layer.frontend}"),
    ]  # fmt: skip
    facts += [("note", layer.note)] if layer.note else []
    for item in row.refused:
        facts += [(item.code, item.reason), ("do", item.advice)]
    chart = _figure("signal", "Signal: this layer among all of them.", f' data-at="{page[5:]}"')
    return (
        f'<article id="{page}" class="layer" data-region="{region}">'
        f'<h2 id="{page}-name">{escape(row.name)}</h2>{pairs_html(facts)}{chart}</article>'
    )
