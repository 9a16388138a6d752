"""What an analysis found: layers, regions, refusals, assumptions."""

from __future__ import annotations

import math

from cerewrite import ir
from cerewrite.reporter.figures import (
    CLOSED_FORM,
    count,
    listed,
    members,
    number,
    percent,
    plural,
    scaled,
    with_error,
)
from cerewrite.reporter.measured import TITLES, values
from cerewrite.reporter.section import SHOWN, Cell, Section, Share

ROUGH = 3
"""Significant digits below which a figure is called about."""


def headline(analysis: ir.Analysis) -> Section:
    """Model, size, the measures with their errors, and how they were found."""
    sizes = f"{plural(len(analysis.layers), 'layer')}, {plural(len(analysis.regions), 'region')}"
    return Section(
        title=f"{analysis.model}: analysis",
        facts=(
            ("size", f"{count(analysis.params)} parameters, {scaled(analysis.flops, 'FLOPs')}"),
            ("graph", f"{sizes} at scope {analysis.scope}, traced by {analysis.frontend}"),
            *(
                (name, _estimate(estimate, analysis.digits))
                for name, estimate in zip(TITLES, values(analysis.measures), strict=True)
            ),
            ("from", _source(analysis)),
            ("at", f"{analysis.parametrization} parametrisation, gain {analysis.gain}"),
        ),
    )


def _estimate(estimate: ir.Estimate, digits: int) -> str:
    """A measure with its error; a closed form shows no more digits than it has."""
    if estimate.stderr is None and math.isfinite(estimate.value):
        about = "about " if digits < ROUGH else ""
        return f"{about}{number(float(f'{estimate.value:.{digits}g}'))}"
    return with_error(estimate.value, estimate.stderr)


def _source(analysis: ir.Analysis) -> str:
    """Where the figures come from, once."""
    levels, layers = analysis.nu.samples, analysis.leading_order.samples
    drawn = [plural(levels, "draw")] if levels else []
    if layers:
        drawn.append(f"layers by {plural(layers, 'draw')} of the jackknife")
    how = ", ".join(drawn) or CLOSED_FORM
    return f"{analysis.estimator}: {how}; {analysis.nu.reference}"


def layers(analysis: ir.Analysis, *, full: bool) -> Section:
    """Per layer: width, shares of the kernel, kappa with its error, share of nu, region."""
    every = analysis.layers
    shown = list(every)
    if not full and len(every) > SHOWN + 4:
        shown = sorted(every, key=lambda layer: -layer.share)[:SHOWN]
    closed = all(layer.kappa_stderr is None for layer in every)
    mixed = len({layer.frontend for layer in every}) > 1
    largest = max((layer.share for layer in every), default=0.0)
    rows = []
    for layer in shown:
        kappa = with_error(layer.kappa, layer.kappa_stderr)
        if closed:
            kappa = number(float(f"{layer.kappa:.{analysis.digits}g}"))
        if layer.kappa_stderr is None and not closed:
            kappa += f" ({CLOSED_FORM})"
        row: list[Cell] = [
            layer.name,
            count(layer.width),
            f"{layer.forward_share:.3f}",
            f"{layer.backward_share:.3f}",
        ]
        row += [kappa, Share(layer.share, largest), layer.region or "-"]
        rows.append(tuple(row + ([layer.frontend] if mixed else [])))
    kappa_title = f">kappa\n({CLOSED_FORM})" if closed else ">kappa\n+- error"
    columns = ("layer", ">width", ">f_up", ">f_dn", kappa_title, "share of nu", "region")
    return Section(
        title="Layers" if len(shown) == len(every) else f"Layers: the {SHOWN} that weigh most",
        columns=columns + (("rung",) if mixed else ()),
        rows=tuple(rows),
        lines=_layer_lines(every, shown),
    )


def _layer_lines(
    every: tuple[ir.LayerEstimate, ...], shown: list[ir.LayerEstimate]
) -> tuple[str, ...]:
    lines = []
    if len(shown) < len(every):
        rest = percent(max(0.0, 1 - sum(layer.share for layer in shown)))
        more = plural(len(every) - len(shown), "more layer")
        lines.append(f"{more}: {rest} of nu together (-v shows them).")
    notes: dict[str, list[str]] = {}
    for layer in every:
        if layer.note:
            notes.setdefault(layer.note, []).append(layer.name)
    lines += [f"{note}: {listed(names)}" for note, names in notes.items()]
    return tuple(lines)


def regions(analysis: ir.Analysis, *, full: bool) -> Section:
    """Per region: members x width, layers, its own measures."""
    estimates = analysis.regions
    shown = estimates if full or len(estimates) <= SHOWN + 8 else estimates[:SHOWN]
    rows = tuple(
        (
            estimate.name,
            members(estimate.region.design),
            _roles(estimate.region),
            *map(number, values(estimate.measures)),
        )
        for estimate in shown
    )
    lines = () if estimates else ("No region can be split; the reasons are below.",)
    if len(shown) < len(estimates):
        lines = (f"{plural(len(estimates) - len(shown), 'more region')} (-v shows them).",)
    return Section(
        title="Regions",
        columns=("region", ">m x n", "layers", *(f">{name}" for name in TITLES)),
        rows=rows,
        lines=lines,
    )


def _roles(region: ir.Region) -> str:
    roles = [layer.role for layer in region.layers]
    kinds = ("entry", "interior", "exit")
    return ", ".join(f"{roles.count(kind)} {kind}" for kind in kinds if kind in roles)


def refusals(analysis: ir.Analysis, plan: ir.Plan | None) -> tuple[ir.Rejection, ...]:
    """What either left as it is, each once."""
    return tuple(dict.fromkeys((*analysis.rejections, *(plan.rejections if plan else ()))))


def rejections(refused: tuple[ir.Rejection, ...], *, full: bool) -> list[Section]:
    """What stays as it is and why, one group per code and reason."""
    by_reason: dict[tuple[str, str, str], list[str]] = {}
    for item in refused:
        by_reason.setdefault((item.code, item.reason, item.advice), []).append(item.where)
    by_code: dict[str, list[tuple[str, str, list[str]]]] = {}
    for (code, reason, advice), places in by_reason.items():
        by_code.setdefault(code, []).append((reason, advice, places))
    groups = []
    for code, entries in by_code.items():
        alike = not full and len(entries) > 3
        places = [place for _, _, where in entries for place in where]
        if alike:
            entries = [(f"{entries[0][0]} (and alike)", entries[0][1], places)]
        for reason, advice, where in entries:
            head = f"{code} ({len(where)})" if len(where) > 1 else code
            most = len(where) if full else 3
            text = (("where", listed(where, most)), ("why", reason), ("do", advice))
            groups.append((head, text))
    if not groups:
        return []
    return [Section(title=f"Left as it is: {len(refused)}", groups=tuple(groups))]


def assumptions(analysis: ir.Analysis) -> list[Section]:
    """What nu rests on."""
    if not analysis.assumptions:
        return []
    return [Section(title="What nu rests on", lines=analysis.assumptions)]
