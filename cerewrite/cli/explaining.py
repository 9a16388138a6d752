"""What is known about one layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cerewrite import ir
from cerewrite.cli.reading import Given
from cerewrite.cli.session import Session
from cerewrite.errors import AnalysisError, UsageError
from cerewrite.registry import suggest


def explained(session: Session, model: str, layer: str, options: Given) -> ir.Explanation:
    """Load, trace and analyse a model; what its analysis, or else its trace, says of a layer.

    Raises:
        CerewriteError: see `cerewrite.analyze`.
    """
    from cerewrite import analysis
    from cerewrite.frontend import tracing
    from cerewrite.frontend.unwrapping import unwrap
    from cerewrite.runtime.untie import untie

    loaded, inputs = session.load(model)
    module = unwrap(loaded.module)
    module = untie(module)[0] if options.pop("untie", False) else module
    with session.clock("trace"):
        traced = tracing.trace(module, inputs)
    try:
        with session.clock("analyse"):
            analysed = analysis.analyze(
                traced, module, inputs, progress=session.progress, **options
            )
    except AnalysisError as error:
        refusals = refused(traced, layer)
        if not refusals:
            raise
        return ir.Explanation(type(module).__name__, layer, None, (), refusals, error.message)
    return explanation(analysed, layer, traced)


def explanation(
    analysis: ir.Analysis, name: str, traced: ir.TracedModel | None = None
) -> ir.Explanation:
    """What an analysis says about a layer, or about what was refused under that name.

    Args:
        analysis: the analysis.
        name: of a layer, a module, a width class or a region.
        traced: the trace: refusals of the widths that the layer reads and writes come too.

    Raises:
        UsageError: if nothing has that name.
    """
    layer = next((item for item in analysis.layers if item.name == name), None)
    names = {name, *_widths(traced, name)}
    refusals = tuple(item for item in analysis.rejections if _concerns(item, names))
    regions = tuple(item for item in analysis.regions if name in _members(item))
    if layer is None and not refusals and not regions:
        known = [item.name for item in analysis.layers] + [r.where for r in analysis.rejections]
        raise UsageError(
            f"{analysis.model} has no layer '{name}'", advice=_hint(name, dict.fromkeys(known))
        )
    return ir.Explanation(analysis.model, name, layer, regions, refusals)


def explain_lines(found: ir.Explanation) -> Iterator[str]:
    """An explanation as plain lines."""
    layer, name = found.layer, found.name
    if layer is not None:
        yield f"{name}: width {layer.width}, {layer.params:,} parameters, {layer.flops:,} FLOPs"
        error = "" if layer.kappa_stderr is None else f" +- {layer.kappa_stderr:.2g}"
        yield f"  kappa {layer.kappa:.4g}{error}, {layer.share:.1%} of the model's sum"
        shares = f"f_up {layer.forward_share:.4g}, f_dn {layer.backward_share:.4g}"
        yield f"  {shares}, rho {layer.rho:.3g}"
        yield f"  moments v_aa {layer.v_aa:.4g}, v_bb {layer.v_bb:.4g}, v_ab {layer.v_ab:.4g}"
        yield f"  seen by {layer.frontend}{'; ' + layer.note if layer.note else ''}"
    for item in found.regions:
        region = item.region
        role = next((one.role for one in region.layers if one.name == name), "resized with it")
        yield (
            f"region {item.name} ({role}): nu {item.nu:.4g}, Var[log K] "
            f"{item.log_variance:.4g}, Var[log K1] {item.sign_variance:.4g}, sum of kappa "
            f"{item.leading_order:.4g}"
        )
        for size, width in zip(region.sizes, region.classes, strict=True):
            yield f"  {size} channels, written first by {width}"
    for refusal in found.rejections:
        yield f"refused at {refusal.where or 'the model'} ({refusal.code}): {refusal.reason}"
        yield f"  -> {refusal.advice}"
    if found.refused:
        yield f"no correction: {found.refused}"
    elif not found.regions and not found.rejections:
        yield "in no region, and refused nowhere: its width is fixed from outside"


def _hint(name: str, known: dict[str, None]) -> str:
    near = suggest(name, known)
    return near if len(known) <= 20 else f"{near.partition(' (choices')[0][:60]}; see -v of analyze"


def _members(estimate: ir.RegionEstimate) -> set[str]:
    region = estimate.region
    names = {item.name for item in region.layers} | {item.name for item in region.modules}
    return names | {estimate.name, *region.classes}


def _concerns(refusal: ir.Rejection, names: Iterable[str]) -> bool:
    return any(refusal.where == name or f"'{name}'" in refusal.reason for name in names)


def _widths(traced: ir.TracedModel | None, name: str) -> list[str]:
    """The width classes that a layer reads and writes."""
    layers = traced.layers if traced is not None else ()
    chosen = next((layer for layer in layers if layer.name == name), None)
    return [] if chosen is None else [*chosen.sources, *filter(None, [chosen.target])]


def refused(traced: ir.TracedModel, name: str) -> tuple[ir.Rejection, ...]:
    """What a trace alone says about a layer, for a model that cannot be analysed."""
    names = {name, *_widths(traced, name)}
    pins = [pin for width in traced.widths if width.name in names for pin in width.pins]
    own = [item for item in (*traced.rejections, *pins) if _concerns(item, names)]
    return tuple(dict.fromkeys([*own, *pins]))
