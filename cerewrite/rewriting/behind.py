"""What lies behind the exits of an ensemble, and whether its members stay apart in it.

A value is *apart* if it comes from an exit. Behind the exits every operator must be affine in what
is apart, row by row: only then is the mean of the members' outputs the model's output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

from cerewrite.errors import RewriteError
from cerewrite.ir import Op, Ref, Region

POINTWISE = frozenset(
    {
        "add", "sub", "rsub", "mul", "div", "neg", "dropout", "clone", "contiguous", "to", "float",
        "double", "half", "bfloat16", "type", "type_as", "alias", "detach", "identity",
    }
)  # fmt: skip
"""Affine, element by element: they act on ``[members, batch, ...]`` as on ``[batch, ...]``."""

ROWS = POINTWISE | frozenset(
    {
        "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose",
        "movedim", "swapaxes", "getitem", "index", "slice", "select", "narrow", "split", "chunk",
        "cat", "stack", "mean", "sum", "pad", "avg_pool1d", "avg_pool2d", "avg_pool3d",
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "pixel_shuffle",
        "pixel_unshuffle", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
        "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d",
    }
)  # fmt: skip
"""Affine, and row by row along the batch: they act on ``[members * batch, ...]`` too."""

SPLIT_AGAIN = "convert at scope='network' without excluding a layer, so that one region holds all"


@dataclass(frozen=True, slots=True)
class Behind:
    """How the members' outputs can be had.

    Attributes:
        rows: whether members come as rows of the batch; else on an axis in front of it.
        apart: per tensor of the model's output, in order, whether it comes from the members.
    """

    rows: bool
    apart: tuple[bool, ...]


def look_behind(
    ops: Sequence[Op], model: nn.Module, region: Region, *, allow_shared: bool
) -> Behind:
    """Follow what the exits write to the model's outputs.

    Args:
        ops: the model's operators, in execution order.
        model: the rewritten model.
        region: its one region.
        allow_shared: whether layers in front of the members or beside them may be shared.

    Raises:
        RewriteError: naming what is shared: a layer or a function that is not affine behind the
            exits, a layer in front of the members, an output that is not theirs.
    """
    walk = _Walk(model, region)
    for op in ops[:-1]:
        walk.step(op)
    outputs = ops[-1].inputs
    unasked = [name for name in walk.outside if name not in walk.behind]
    if unasked and not allow_shared:
        raise _shared(
            model,
            f"{_titled(model, unasked[0])} in front of the members or beside them",
            f"{SPLIT_AGAIN}; or allow it: members(model, allow_shared=True)",
        )
    apart = tuple(name in walk.apart for name in outputs)
    for number, name in enumerate(outputs):
        if name not in walk.apart and name in walk.inner:
            raise _shared(
                model,
                f"output {number} is made of all members' channels side by side",
                "return what the exits write, or nothing that lies inside the members",
            )
    if not any(apart):
        raise _shared(model, "no output comes from an exit of the region", SPLIT_AGAIN)
    rows = not walk.used <= POINTWISE
    if rows and walk.mixed:
        raise _shared(
            model,
            f"'{walk.mixed}' joins the members' sum to a value of the whole batch, before "
            f"{', '.join(sorted(walk.used - POINTWISE))}",
            "join them where nothing but sums and scales follows",
        )
    return Behind(rows, apart)


class _Walk:
    """Which values are apart, which lie inside the members, which come from the inputs."""

    def __init__(self, model: nn.Module, region: Region) -> None:
        self.model = model
        self.exits = {layer.name for layer in region.layers if layer.role == "exit"}
        names = {layer.name for layer in region.layers} | {m.name for m in region.modules}
        self.region = names
        self.outside = tuple(_outside(model, names))
        self.apart: set[str] = set()
        self.inner: set[str] = set()
        self.fed: set[str] = set()
        self.used: set[str] = set()
        self.behind: set[str] = set()
        self.mixed = ""
        self.homes: dict[str, str] = {}

    def step(self, op: Op) -> None:
        """Follow one operator."""
        self.homes[op.name] = op.module
        reads = _reads(op)
        apart = [name for name in reads if name in self.apart]
        if op.target == "input" or any(name in self.fed for name in reads):
            self.fed.add(op.name)
        if op.module in self.exits and not op.is_stored:
            foreign = [name for name in apart if self.homes[name] != op.module]
            if foreign:
                self._refuse(f"{self._title(op.module)} reads what the members add up to")
            self.apart.add(op.name)
        elif apart:
            self._follow(op, reads, apart)
        elif op.module in self.region or any(name in self.inner for name in reads):
            self.inner.add(op.name)

    def _follow(self, op: Op, reads: Sequence[str], apart: Sequence[str]) -> None:
        """An operator behind the exits."""
        others = [name for name in reads if name not in self.apart]
        title = self._title(op.module) if op.module else "its forward"
        if op.target not in ROWS:
            self._refuse(f"{title} applies '{op.target}' to what the members add up to")
        if op.target in ("mul", "div") and len(apart) > 1:
            self._refuse(f"{title} multiplies or divides two sums of members ('{op.target}')")
        if op.target == "div" and reads[0] not in self.apart:
            self._refuse(f"{title} divides by what the members add up to")
        if any(name in self.inner for name in others):
            self._refuse(f"{title} joins the members' sum to values inside them ('{op.target}')")
        held = [name for name in self.outside if op.module == name or name in others]
        if held:
            self._refuse(f"{self._title(held[0])} lies behind the sum of the members")
        if any(name in self.fed for name in others):
            self.mixed = op.target
        self.used.add(op.target)
        self.apart.add(op.name)

    def _title(self, name: str) -> str:
        return _titled(self.model, name)

    def _refuse(self, what: str) -> None:
        raise _shared(
            self.model,
            what,
            "return what the exits write (logits) and apply the rest outside of the model; "
            + SPLIT_AGAIN,
        )


def _reads(op: Op) -> list[str]:
    """Names of the values that an operator reads, also where a function was made of several."""
    found = [leaf.name for leaf in _leaves((op.args, dict(op.kwargs or {})))]
    return found or list(op.inputs)


def _leaves(tree: Any) -> Iterator[Ref]:
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Ref):
            yield leaf
        elif isinstance(leaf, slice):
            yield from _leaves((leaf.start, leaf.stop, leaf.step))


def _outside(model: nn.Module, names: set[str]) -> Iterator[str]:
    """Modules with parameters of their own, and free parameters, that no member has."""
    for name, module in model.named_modules():
        if name in names:
            continue
        own = [f"{name}.{p}" if name else p for p, _ in module.named_parameters(recurse=False)]
        left = [parameter for parameter in own if parameter not in names]
        if left:
            yield name or left[0]


def _titled(model: nn.Module, name: str) -> str:
    """``'head' (Linear)``, or the parameter's name alone."""
    modules = dict(model.named_modules())
    return f"'{name}' ({type(modules[name]).__name__})" if name in modules else f"'{name}'"


def _shared(model: nn.Module, what: str, advice: str) -> RewriteError:
    return RewriteError(
        f"the members of this {type(model).__name__} cannot be asked one by one, they share a "
        f"part of it: {what}",
        advice=advice,
    )
