"""Regions: connected sets of width classes that may be split into members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Annotated

from cerewrite.ir.design import Design
from cerewrite.ir.graph import PerChannel
from cerewrite.ir.profile import Profile, SavedActivations
from cerewrite.ir.ranges import Factor, Index, Scope, Size, Spread, Target, Text, Word, one_of

Role = Annotated[str, one_of("entry", "interior", "exit")]


@dataclass(frozen=True, slots=True)
class RegionLayer:
    """A sampled layer's part in a region.

    Attributes:
        name: qualified name of its module.
        op: registered operator rule.
        role: ``entry`` (reads from outside), ``interior``, or ``exit`` (writes outside).
        sources: indices into the region's widths of the classes it reads, several for a
            concatenation, in order; none for an entry.
        target: index of the class it writes; -1 for an exit.
        in_channels: channels read in the original model.
        out_channels: channels written in the original model.
        kernel: weights per (input channel, output channel) pair.
        positions: output positions per example.
        bias: whether it has a bias.
        groups: groups inside every member; above 1 for interior layers only.
        times: how often it reads its source class.
        writes: how often it writes its target class, once for every part side by side.
        settings: parameters per output channel besides weight and bias.
    """

    name: Text
    op: Word
    role: Role
    sources: tuple[Index, ...]
    target: Target
    in_channels: Size
    out_channels: Size
    kernel: Size
    positions: Size
    bias: bool
    groups: Size = 1
    times: Size = 1
    writes: tuple[Size, ...] = (1,)
    settings: Index = 0

    def reads(self, widths: Sequence[int]) -> int:
        """Channels that one member reads inside the region, from widths per class."""
        return self.times * sum(widths[source] for source in self.sources)

    @property
    def written(self) -> int:
        """Channels that it writes where its class has one, all parts together."""
        return sum(self.writes)

    def parts(self, width: int) -> tuple[int, ...]:
        """Channels of every part that it writes, where its class has so many."""
        return tuple(width * times for times in self.writes)


@dataclass(frozen=True, slots=True)
class Site:
    """Where finite width enters a region: the units of one class, seen after one layer.

    The layer's fluctuation is ``kappa = c / width`` with c fixed by the shares and moments
    (docs/theory.md, sections 4 and 6); the planner varies the width.

    Attributes:
        layer: the sampled layer whose fresh weights fluctuate.
        width: index into the region's widths.
        forward_share: d log K / d log(forward second moment), dimensionless.
        backward_share: d log K / d log(backward second moment).
        v_aa: relative variance of one unit's forward energy.
        v_bb: relative variance of one unit's backward energy.
        v_ab: their relative covariance.
        rho: spatial factor, at least 0; 1 for dense layers, and above where the closed form is low.
        c_norm: what the energy that a norm divides out adds, at one unit.
        groups: members inside a member that its units lie in: existing groups that stay.
        bundle: what the sites that share those have in common; "" without.
        excess: channels: members of width n scatter ``1 + excess (1 / n - 1 / own)`` times what
            the rest says, as draws of a rewritten model showed (docs/theory.md, section 31).
        own: width of one member in the original model; 0 where there is no excess.
        normed: share of log K that a norm over the units of its class divides by their energy, as
            a whole at one site of the class; 0 without such a norm.
    """

    layer: Text
    width: Index
    forward_share: Factor
    backward_share: Factor
    v_aa: Spread
    v_bb: Spread
    v_ab: Factor
    rho: Spread = 1.0
    c_norm: Factor = 0.0
    groups: Size = 1
    bundle: Text = ""
    excess: Factor = 0.0
    own: Index = 0
    normed: Factor = 0.0

    @property
    def coefficient(self) -> float:
        """``kappa * width``: the layer's correction at one unit."""
        up, dn = self.forward_share, self.backward_share
        scatter = self.v_aa * up * up + self.v_bb * dn * dn + 2 * self.v_ab * up * dn
        return self.rho * (max(scatter, 0.0) + self.c_norm)


@dataclass(frozen=True, slots=True)
class Region:
    """A connected set of width classes with its layers (docs/theory.md, section 8).

    Attributes:
        name: the shortest qualified prefix its layers share, or its first layer.
        scope: the scope it was found at (``block``, ...).
        classes: names of its width classes, in execution order.
        sizes: their channels in the original model, all members together.
        multiplicity: members the original already has (1, or its uniform groups).
        layers: entries, interiors and exits, in execution order.
        modules: the per-channel modules, each with the classes it acts on.
        sites: where finite width enters, in execution order; empty before an analysis.
        profile: measured times of its layers, where a latency budget asked for them.
        kept: what training keeps of its values, where it was counted.
        step: measured times of its layers in a training step, where they were timed.
        nu_level: log(1 + nu) of the model as estimated over that composed of its sites, above 0
            (docs/theory.md, section 31).
        heads: per class, the channels of a head, which members keep whole; empty without any.
    """

    name: Text
    scope: Scope
    classes: tuple[Text, ...]
    sizes: tuple[Size, ...]
    multiplicity: Size
    layers: tuple[RegionLayer, ...]
    modules: tuple[PerChannel, ...]
    sites: tuple[Site, ...] = ()
    profile: Profile | None = None
    kept: SavedActivations | None = None
    step: Profile | None = None
    nu_level: Spread = 1.0
    heads: tuple[Size, ...] = ()

    def __repr__(self) -> str:
        """Its name and design, on one line."""
        return (
            f"Region({self.name}: {len(self.layers)} layers at scope {self.scope}, "
            f"{self.multiplicity} x {self.widths})"
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of one member per class in the original model."""
        return tuple(size // self.multiplicity for size in self.sizes)

    @property
    def design(self) -> Design:
        """Members and their widths in the original model."""
        return Design(self.multiplicity, self.widths)

    @property
    def steps(self) -> tuple[int, ...]:
        """What the width of one member must be a multiple of, per class."""
        found = [1] * len(self.classes)
        for index, _, step in self._dividing():
            found[index] = lcm(found[index], step)
        return tuple(found)

    def dividing(self, index: int) -> dict[str, int]:
        """The modules and layers that want a multiple, and of what, at one class."""
        return {name: step for at, name, step in self._dividing() if at == index and step > 1}

    def _dividing(self) -> Iterator[tuple[int, str, int]]:
        positions = {name: index for index, name in enumerate(self.classes)}
        for module in self.modules:
            for name in module.widths:
                yield positions[name], module.name, module.divisor
        for index, step in enumerate(self.heads):
            yield index, f"the heads of '{self.classes[index]}'", step
        for layer in self.layers:
            for index in (*layer.sources, *([] if layer.target < 0 else [layer.target])):
                yield index, layer.name, layer.groups

    @property
    def least(self) -> tuple[int, ...]:
        """The least width of one member that the per-channel modules can serve, per class."""
        found = dict.fromkeys(self.classes, 1)
        for module in self.modules:
            for name in module.widths:
                found[name] = max(found[name], module.least)
        return tuple(found.values())

    @property
    def grains(self) -> tuple[int, ...]:
        """Channels of layers where a class has one, at most: above 1 where it counts heads."""
        found = [1] * len(self.classes)
        for layer in self.layers:
            for source in layer.sources:
                found[source] = max(found[source], layer.times)
            if layer.target >= 0:
                found[layer.target] = max(found[layer.target], *layer.writes)
        return tuple(found)

    def width_of(self, module: PerChannel, widths: Sequence[int]) -> int:
        """Channels of one member at a per-channel module, from widths per class."""
        total = sum(widths[self.classes.index(name)] for name in module.widths)
        return total * module.times // module.per
