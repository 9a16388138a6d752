"""Members' outputs in the file: every member's own, or their disagreement, beside the mean."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from cerewrite.errors import UsageError
from cerewrite.exporter.inputs import named_tensors
from cerewrite.rewriting.members import Members, members
from cerewrite.runtime.modes import sign

ADDED = ("each", "disagreement")
"""What a file may hold beside the mean: all members' outputs, or their standard deviation."""


class MemberOutputs(nn.Module):
    """A model that returns its own outputs, and of each what the members add.

    Outputs are a dictionary. A model's only output is ``output``; to it comes ``members``
    ``[batch, m, ...]`` or ``disagreement`` ``[batch, ...]``, the members' standard deviation. Of
    several outputs those of ``name`` are ``name_members`` or ``name_disagreement``.

    Args:
        asked: what `cerewrite.members` returned.
        add: ``each`` or ``disagreement``.
    """

    def __init__(self, asked: Members, add: str) -> None:
        super().__init__()
        self.asked, self.add = asked, add
        sign(self, asked.model)  # of whose arguments the inputs of the file are named

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The means, and what the members add."""
        named = named_tensors(self.asked(*args, **kwargs), ())
        found: dict[str, Tensor] = {}
        for (name, tensor), apart in zip(named, self.asked.behind.apart, strict=True):
            if not apart:
                found[name] = tensor[0]
                continue
            found[name] = tensor.mean(0)
            prefix = "" if len(named) == 1 else f"{name}_"
            added = prefix + ("members" if self.add == "each" else "disagreement")
            if added in {name for name, _ in named}:
                raise UsageError(
                    f"'{added}' is an output of the model itself, which the members' would replace",
                    advice="name that output otherwise",
                )
            found[added] = tensor.transpose(0, 1) if self.add == "each" else tensor.std(0)
        return found


def with_members(model: nn.Module, example_inputs: Any, add: str) -> MemberOutputs:
    """The model to export where members are asked for.

    Raises:
        UsageError: if ``add`` is none of `ADDED`.
        RewriteError: if the model's members cannot be asked; see `cerewrite.members`.
    """
    if add not in ADDED:
        raise UsageError(f"unknown outputs of members '{add}'", advice=f"choose from {ADDED}")
    return MemberOutputs(members(model, example_inputs), add)


def is_by_member(model: nn.Module, name: str, names: Collection[str]) -> bool:
    """Whether an output has an axis of members behind the batch: its mean is among the names."""
    if not isinstance(model, MemberOutputs) or model.add != "each":
        return False
    own = name.removesuffix("_out")
    return own == "members" or (own.endswith("_members") and own.removesuffix("_members") in names)
