"""Warm start: members take the original's channels and are fitted to what it writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError
from cerewrite.ir import RegionLayer
from cerewrite.nn.channel_reorder import member_order
from cerewrite.rewriting.engine import Pass, PassResult, Phase, register
from cerewrite.rewriting.session import Change, Session
from cerewrite.rewriting.transfer import (
    Interior,
    blocks_of,
    dense_weight,
    fit_block,
    group_channels,
    read_rows,
    store_block,
    take_channels,
)
from cerewrite.rewriting.transfer.calibration import Visit, examples, visit
from cerewrite.rewriting.transfer.seen import Seen, look_at, refuse_uncarried
from cerewrite.runtime.seeds import generator_for

NOISE = 0.01
"""Relative deviation of what tells copies of a channel apart, so that they can grow apart."""


@dataclass(slots=True)
class _Part:
    """What becomes of one layer.

    Attributes:
        name: its qualified name.
        layer: its part in a region (its sizes are the original's).
        order: how it puts the channels of its input member by member; None as they come.
        reads: original channels that the ensemble's input channels are copies of; None for all.
        writes: likewise for the output channels.
    """

    name: str
    layer: RegionLayer
    order: list[int] | None = None
    reads: Tensor | None = None
    writes: Tensor | None = None


@register
@dataclass(frozen=True)
class TransferWeights(Pass):
    """Members start from trained channels instead of fresh draws, where the plan asks for it.

    Channels are grouped so that the blocks keep most of each interior layer's energy; per-channel
    modules take their channels' settings. With calibration inputs, every interior block and every
    exit is then fitted in closed form to what the original writes there, in execution order and on
    what the members really read, and batch norms of the regions take the batch's statistics.

    Attributes:
        calibration: one batch of inputs, a tuple or a dict; None to copy weights only.
    """

    name: ClassVar[str] = "transfer_weights"
    phase: ClassVar[Phase] = Phase.TRANSFER

    calibration: Any = None

    def requires(self, session: Session) -> None:
        """Weights have values, every layer is linear or a convolution, no heads, usable inputs."""
        if session.plan.weights != "transfer":
            return
        if any(parameter.is_meta for parameter in session.model.parameters()):
            raise RewriteError(
                "the model's parameters are on the meta device: there are no weights to transfer",
                advice="load trained weights, or choose weights='reinitialise'",
            )
        for change in session.changes:
            refuse_uncarried(change, session)
        if self.calibration is not None:
            examples(self.calibration)

    def apply(self, session: Session) -> PassResult:
        """Group, copy, fit."""
        if session.plan.weights != "transfer":
            return PassResult(self.name, "the plan asks for fresh weights")
        seen = look_at(session, self.calibration) if self.calibration is not None else Seen()
        parts, kept = _group(session, seen)
        for part in parts.values():
            _copy(session, part)
        errors = _fit_all(session, parts, seen, self.calibration) if seen.order else []
        share = sum(kept) / len(kept) if kept else 1.0
        details = f"{len(parts)} layers, {share:.0%} of the interiors' energy within members"
        if errors:
            details += f", mean held-out error of {len(errors)} fits {np.mean(errors):.2f}"
        return PassResult(self.name, details)


def _group(session: Session, seen: Seen) -> tuple[dict[str, _Part], list[float]]:
    """Choose channels for every changed region; norms and other modules take them at once."""
    parts: dict[str, _Part] = {}
    kept = []
    for change in session.changes:
        members, share = _choose(session, change, seen)
        if any(layer.role == "interior" for layer in change.region.layers):
            kept.append(share)
        for layer in change.region.layers:
            part = parts.setdefault(layer.name, _Part(layer.name, layer))
            if layer.sources:
                reads = _side_by_side(change, members, layer.sources)
                if layer.role == "interior":
                    part.order = _member_order(change, layer)
                part.reads = reads if part.order is None else reads[part.order]
            if layer.target >= 0:
                part.writes = members[layer.target]
        for module in change.region.modules:
            own = tuple(change.region.classes.index(name) for name in module.widths)
            index = _side_by_side(change, members, own)
            take_channels(session.get(module.name), session.originals[module.name], index)
    return parts, kept


def _side_by_side(change: Change, members: list[Tensor], classes: tuple[int, ...]) -> Tensor:
    """Original channels of a concatenation of classes, in the ensemble's order."""
    starts = [0, *accumulate(change.region.sizes[i] for i in classes)]
    return torch.cat([members[i] + start for i, start in zip(classes, starts, strict=False)])


def _member_order(change: Change, layer: RegionLayer) -> list[int]:
    """How the channels that an interior layer reads are put member by member."""
    m, widths = change.split.multiplicity, change.split.widths
    return member_order([m * widths[i] for i in layer.sources], m)


def _choose(session: Session, change: Change, seen: Seen) -> tuple[list[Tensor], float]:
    """Original channels per class, all members in a row, and the energy that stays inside."""
    region, split = change.region, change.split
    importance = [np.full(size, 1e-12) for size in region.sizes]
    interiors = []
    for layer in region.layers:
        energy = dense_weight(session.originals[layer.name], layer).double().square().sum(2)
        if layer.name in seen.energies:
            energy = energy * seen.energies[layer.name].to(energy.device)
        table = energy.cpu().numpy()
        starts = [0, *accumulate(region.sizes[i] for i in layer.sources)]
        for source, start in zip(layer.sources, starts, strict=False):
            own = table[:, start : start + region.sizes[source]]
            importance[source] += own.sum(0) / max(table.sum(), 1e-30)
            if layer.role == "interior":
                interiors.append(Interior(source, layer.target, own))
    seed = session.plan.seed % 2**63
    found, share = group_channels(importance, interiors, split.multiplicity, split.widths, seed)
    return [torch.from_numpy(part.reshape(-1)) for part in found], share


def _copy(session: Session, part: _Part) -> None:
    """Copy the original's weights; readers of several copies of a channel share its weight."""
    new = session.get(part.name)
    for index, prior in enumerate(_priors(session, part, blocks_of(new))):
        store_block(new, index, prior.weight, prior.bias)


@dataclass(frozen=True, slots=True)
class _Prior:
    """A block cut from the original.

    Attributes:
        weight: ``[out, in, kernel elements]``.
        bias: ``[out]``, None without.
        writes: original channels that it writes, ``[out]``.
    """

    weight: Tensor
    bias: Tensor | None
    writes: Tensor


def _priors(session: Session, part: _Part, count: int) -> Iterator[_Prior]:
    """The ``count`` blocks of one layer, in order."""
    old = session.originals[part.name]
    dense, bias = dense_weight(old, part.layer), getattr(old, "bias", None)
    for index in range(count):
        reads = _own(part.reads, part.layer.in_channels, index, count).to(dense.device)
        writes = _own(part.writes, part.layer.out_channels, index, count).to(dense.device)
        copies = torch.bincount(reads, minlength=part.layer.in_channels)[reads].to(dense)
        weight = dense[writes][:, reads] / copies[:, None]
        generator = generator_for(session.plan.seed, f"{part.name} {index}")
        weight = _tell_apart(weight, writes, generator)
        yield _Prior(weight, None if bias is None else bias.detach()[writes], writes)


def _own(channels: Tensor | None, size: int, index: int, count: int) -> Tensor:
    """The original channels of one block's side."""
    return torch.arange(size) if channels is None else channels.chunk(count)[index]


def _tell_apart(weight: Tensor, writes: Tensor, generator: torch.Generator) -> Tensor:
    """Noise on the second and later copies of an output channel within one block."""
    channels = writes.tolist()
    first = {channel: i for i, channel in reversed(list(enumerate(channels)))}
    later = [i for i, channel in enumerate(channels) if first[channel] < i]
    if not later:
        return weight
    noise = torch.randn(weight[later].shape, generator=generator, dtype=torch.float64).to(weight)
    scale = weight[later].square().mean((1, 2), keepdim=True).sqrt() * NOISE
    weight[later] += scale * noise
    return weight


def _fit_all(session: Session, parts: dict[str, _Part], seen: Seen, inputs: Any) -> list[float]:
    """Fit interiors and exits in execution order, in one run; returns the held-out errors."""
    norms = [module.name for change in session.changes for module in change.region.modules]
    errors: list[float] = []

    def fit(name: str) -> Visit:
        def look(module: nn.Module, input: Tensor, output: Tensor) -> Tensor:
            errors.extend(_fit_layer(session, parts[name], seen, module, input))
            fitted: Tensor = module.forward(input)
            return fitted

        return look

    fits = {name: fit(name) for name in seen.order if parts[name].reads is not None}
    visit(session.model, inputs, fits, norms=norms)
    return errors


def _fit_layer(
    session: Session, part: _Part, seen: Seen, module: nn.Module, input: Tensor
) -> list[float]:
    """Fit every block of a layer to what the original writes; returns the held-out errors."""
    assert part.reads is not None
    read = read_rows(module, input, len(part.reads), seen.rows[part.name])
    read = read if part.order is None else read[:, part.order]
    targets, count, errors = seen.targets[part.name], blocks_of(module), []
    blocks = zip(read.chunk(count, 1), _priors(session, part, count), strict=True)
    for index, (own, prior) in enumerate(blocks):
        wanted = targets[:, prior.writes.to(targets.device)]
        weight = prior.weight.flatten(1)
        fit = fit_block(own.flatten(1), wanted, weight, bias=prior.bias is not None)
        store_block(module, index, fit.weight.view_as(prior.weight), fit.bias)
        errors.append(fit.error)
    return errors
