"""Which modules of a model belong to rewritten regions, and what one member of each is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cerewrite.ir import PerChannel, RegionLayer
from cerewrite.nn import get_parameter
from cerewrite.nn.channel_reorder import member_order
from cerewrite.ops import resizable_module, sampled_layer, splittable_layer
from cerewrite.ops.member_order import channels_by_member, member_major
from cerewrite.ops.resizing import part
from cerewrite.rewriting.record import copy_sharing_record
from cerewrite.rewriting.session import Change, set_submodule
from cerewrite.runtime.aliases import aliases


@dataclass(frozen=True, slots=True)
class RegionModule:
    """A wide module of a region, from which members are cut.

    Attributes:
        name: qualified name.
        wide: the module in the ensemble.
        change: the region and its split.
        item: what the region says about the module.
        reader: the region that reads what an exit writes, and the exit's part as its entry.
    """

    name: str
    wide: nn.Module
    change: Change
    item: RegionLayer | PerChannel
    reader: tuple[Change, RegionLayer] | None = None

    @property
    def members(self) -> int:
        """Members of the region."""
        return self.change.split.multiplicity

    @property
    def is_exit(self) -> bool:
        """Whether the members' outputs are added here."""
        return isinstance(self.item, RegionLayer) and self.item.role == "exit"

    @property
    def ordered(self) -> nn.Module:
        """The wide module with every member's channels side by side, even in a concatenation."""
        m, widths = self.change.split.multiplicity, self.change.split.widths
        if isinstance(self.item, RegionLayer):
            return member_major(self.wide, self.item, m, widths)
        if len(self.item.widths) == 1:
            return self.wide
        own = (self.change.region.classes.index(name) for name in self.item.widths)
        times = self.item.times
        return channels_by_member(self.wide, [m * times * widths[i] for i in own], m)

    def narrow(self, index: int) -> nn.Module:
        """The module of member ``index``."""
        if isinstance(self.item, PerChannel):
            return resizable_module(self.item.op).member(self.ordered, index, self.members)
        rule, widths = splittable_layer(self.item.op), self.change.split.widths
        return rule.member(self.ordered, self.item, index, self.members, widths)

    def share(self, output: Tensor, index: int) -> Tensor:
        """What member ``index`` of the region that reads an exit sees of its output."""
        if self.reader is None:
            return output
        change, layer = self.reader
        m, width = change.split.multiplicity, change.split.widths[layer.target]
        order = member_order(layer.parts(m * width), m)
        own = part(min(index, m - 1), layer.written * width)
        picked = torch.tensor(order[own], device=output.device)
        return output.index_select(sampled_layer(layer.op).axis, picked)


def pieces(model: nn.Module, changes: Sequence[Change]) -> list[RegionModule]:
    """Every module of every changed region; a layer between two regions comes as the exit."""
    found: dict[str, list[tuple[Change, RegionLayer | PerChannel]]] = defaultdict(list)
    for change in changes:
        for module in change.region.modules:
            found[module.name].append((change, module))
        for layer in change.region.layers:
            found[layer.name].append((change, layer))
    return [_piece(name, get_parameter(model, name), parts) for name, parts in found.items()]


def member_networks(model: nn.Module, change: Change) -> Iterator[nn.Module]:
    """Every member as the narrow network it is, of a model with one region from input to output.

    Their exits give the member's own output, ``m`` times its contribution and all of the bias
    (`cerewrite.members`). All are one copy of the model that shares its tensors and whose layers
    are exchanged: use each before the next.

    Args:
        model: the rewritten model; left as it is.
        change: its one region and split.
    """
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    narrow = copy_sharing_record(model, shared)
    cut, others = pieces(narrow, (change,)), aliases(narrow)
    for index in range(change.split.multiplicity):
        for piece in cut:
            set_submodule(narrow, piece.name, _own(piece, index), others)
        yield narrow


def _own(piece: RegionModule, index: int) -> nn.Module:
    """The layer of one member, that of its own output where it is an exit."""
    own = piece.narrow(index)
    if piece.is_exit:
        with torch.no_grad():
            own.get_parameter("weight").mul_(piece.members)
            if getattr(piece.wide, "bias", None) is not None:
                own.get_parameter("bias").copy_(piece.wide.get_parameter("bias"))
    return own


def _piece(
    name: str, wide: nn.Module, parts: list[tuple[Change, RegionLayer | PerChannel]]
) -> RegionModule:
    if len(parts) == 1:
        return RegionModule(name, wide, *parts[0])
    by_role = {item.role: (change, item) for change, item in parts if isinstance(item, RegionLayer)}
    assert len(parts) == 2 and set(by_role) == {"entry", "exit"}, (name, parts)
    return RegionModule(name, wide, *by_role["exit"], reader=by_role["entry"])
