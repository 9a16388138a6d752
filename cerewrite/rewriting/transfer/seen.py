"""What the original shows on calibration inputs, and which layers can be carried at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from cerewrite.errors import RewriteError
from cerewrite.ops import sampled_layer
from cerewrite.ops.standardised import standardises
from cerewrite.rewriting.session import Change, Session
from cerewrite.rewriting.transfer.calibration import Visit, visit
from cerewrite.rewriting.transfer.patches import Rows, positions, written_rows
from cerewrite.runtime.seeds import generator_for

KNOWN = ("linear", "conv", "conv_transpose")
"""Operators whose weights the pass can carry."""


@dataclass(slots=True)
class Seen:
    """What the original showed on the calibration inputs.

    Attributes:
        rows: which positions of each layer's output were looked at.
        targets: its outputs there, ``[rows, out]``.
        energies: mean square of each of its input channels.
        order: layers in the order in which they ran.
    """

    rows: dict[str, Rows] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    energies: dict[str, Tensor] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)


def refuse_uncarried(change: Change, session: Session) -> None:
    """Refuse a region with layers whose weights a warm start cannot carry.

    Channels of a head belong together, and query, key and value to one another.

    Raises:
        RewriteError: for layers that are neither linear nor convolutions or that standardise their
            weights, and where members own whole heads, or parts of one layer's output.
    """
    region = change.region
    for layer in region.layers:
        module = session.originals.get(layer.name)
        if layer.op not in KNOWN or standardises(module or session.get(layer.name)):
            raise RewriteError(
                f"'{layer.name}' ({layer.op}): a warm start cannot carry its weights",
                advice="exclude the layer, or choose weights='reinitialise'",
            )
    found = zip(region.classes, region.heads, strict=False)
    heads = next((name for name, step in found if step > 1), None)
    parted = next((layer.name for layer in region.layers if len(layer.writes) > 1), None)
    if heads or parted:
        raise RewriteError(
            f"'{heads or parted}' writes heads, or several values at once: a warm start picks "
            "channels one by one and would tear them apart",
            advice="choose weights='reinitialise', or exclude the region",
        )


def look_at(session: Session, inputs: Any) -> Seen:
    """Run the original, which is put back for that long, and note what its layers do."""
    seen = Seen()
    layers = {layer.name: layer for change in session.changes for layer in change.region.layers}

    def note(name: str) -> Visit:
        def look(module: nn.Module, input: Tensor, output: Tensor) -> None:
            generator = generator_for(session.plan.seed, f"rows of {name}")
            seen.rows[name] = Rows.choose(positions(module, output), generator)
            seen.targets[name] = written_rows(module, output, seen.rows[name]).double()
            axis = sampled_layer(layers[name].op).axis
            channels = input.movedim(axis, 0).reshape(layers[name].in_channels, -1)
            seen.energies[name] = channels.double().square().mean(1)
            seen.order.append(name)

        return look

    new = {name: session.get(name) for name in session.originals}
    try:
        for name, module in session.originals.items():
            session.put(name, module)
        visit(session.model, inputs, {name: note(name) for name in layers})
    finally:
        for name, module in new.items():
            session.put(name, module)
    if not all(bool(target.isfinite().all()) for target in seen.targets.values()):
        raise RewriteError(
            "the original's layers give values that are not finite on the calibration inputs",
            advice="check the model's weights",
        )
    return seen
