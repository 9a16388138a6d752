"""`cerewrite.members`: every member's own output, in one forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError, UsageError, first_line
from cerewrite.frontend.tracing import record_ops
from cerewrite.frontend.unwrapping import unwrap
from cerewrite.ir import RegionLayer
from cerewrite.nn import SCALED, MemberConv, MemberConvTranspose, MemberExit, MemberLinear
from cerewrite.ops import sampled_layer
from cerewrite.ops.own_forwards import expect
from cerewrite.rewriting.behind import SPLIT_AGAIN, Behind, look_behind
from cerewrite.rewriting.record import draw_inputs, get_record
from cerewrite.rewriting.session import Change, changes_of
from cerewrite.runtime.alone import short_of_memory
from cerewrite.runtime.copies import CALL_HOOKS
from cerewrite.runtime.modes import called, sign, undisturbed
from cerewrite.runtime.trees import map_tensors, tensors

CLOSE = 1e-2
"""Relative difference, in the model's own precision, between the members' mean and the model."""

_EXITS: dict[str, tuple[type[MemberExit], tuple[type[nn.Module], ...]]] = {
    "linear": (MemberLinear, (nn.Linear,)),
    "linear_turned": (MemberLinear, (nn.Linear,)),
    "conv": (MemberConv, (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
    "conv_transpose": (
        MemberConvTranspose,
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    ),
}


def members(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    allow_shared: bool = False,
) -> Members:
    """A module that gives every member's own output, of a model that is one ensemble throughout.

    ``members(model)(x)`` is what ``model(x)`` is, with an axis of m members in front of every
    tensor: ``[m, batch, ...]``. The model's output is the mean of the members'. An exit that adds
    up contributions, ``y = sum_j c_j + b``, gives ``z_j = m c_j + b``: with ``exit_scale="mean"``
    that is the output of member j as a network of its own; with exits of scale ``1 / sqrt(m)`` it
    is ``sqrt(m)`` times as far from b (docs/theory.md, section 14). One forward of the same layers,
    of which only the exits work differently; the parameters are the model's own.

    Train the result, or the model: both change the same parameters. Wrap the result, not the
    model, in `DistributedDataParallel` or ``torch.compile``.

    Args:
        model: what `cerewrite.apply`, `cerewrite.convert` or `cerewrite.load` returned.
        example_inputs: as for `cerewrite.analyze`; needed only where they cannot be drawn to the
            shapes of the analysis.
        allow_shared: let members share layers in front of them or beside them. They are no
            separate networks then, but their mean is the model still.

    Raises:
        RewriteError: if the model is no rewritten one; has one member only; is not one region
            from input to output; or members share what lies behind their sum, which is named.
        UsageError: if there are no example inputs, and none can be drawn.

    Example:
        >>> import cerewrite
        >>> net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
        ...                     nn.Linear(32, 3))
        >>> x = torch.randn(5, 4)
        >>> model = cerewrite.convert(net, x, members=4, budget="params").model
        >>> outputs = members(model)(x)
        >>> outputs.shape, torch.allclose(outputs.mean(0), model(x), atol=1e-5)
        (torch.Size([4, 5, 3]), True)
    """
    model = unwrap(model)
    change = single_change(model)
    inputs = _inputs(model, example_inputs)
    behind = look_behind(record_ops(model, inputs), model, change.region, allow_shared=allow_shared)
    found = Members(model, change, behind)
    found.prove(inputs)
    return found


def single_change(model: nn.Module) -> Change:
    """The one region of a rewritten model, with its split.

    Raises:
        RewriteError: if the model is no rewritten one, has several regions, or one member.
    """
    record = get_record(model)
    if record is None:
        raise RewriteError(
            f"this {type(model).__name__} is not a rewritten model: it has no members",
            advice="pass the module that cerewrite.apply or cerewrite.convert returned",
        )
    changes = tuple(changes_of(record.plan))
    if len(changes) != 1:
        names = ", ".join(f"'{change.region.name}'" for change in changes[:4]) or "none"
        raise RewriteError(
            f"{len(changes)} regions of this {type(model).__name__} were split ({names}): "
            "members are added up at the end of each, so that no member goes from input to output",
            advice=SPLIT_AGAIN,
        )
    if changes[0].split.multiplicity < 2:
        raise RewriteError(
            f"this {type(model).__name__} has one member, which is the model itself",
            advice="ask for more: cerewrite.convert(model, inputs, members=4)",
        )
    return changes[0]


def mean_output(outputs: Any) -> Any:
    """The model's own output from its members': the mean over the first axis of each tensor.

    Example:
        >>> mean_output({"logits": torch.tensor([[1.0], [3.0]])})
        {'logits': tensor([2.])}
    """
    return map_tensors(lambda t: t.mean(0) if t.is_floating_point() else t[0], outputs)


def member_output(outputs: Any, index: int) -> Any:
    """One member's output from all of them, structure as it is."""
    return map_tensors(lambda tensor: tensor[index], outputs)


class Members(nn.Module):
    """What `members` returns; its parameters are the model's.

    Attributes:
        apart: the model with its exits' members apart; all else is shared with it.
        count: how many members there are.
    """

    def __init__(self, model: nn.Module, change: Change, behind: Behind) -> None:
        super().__init__()
        self.count = change.split.multiplicity
        self.behind = behind
        exits = {
            layer.name: _exit(model, layer, change, behind)
            for layer in change.region.layers
            if layer.role == "exit"
        }
        self._pairs: list[tuple[nn.Module, nn.Module]] = []
        self.apart = self._copy(model, "", exits)
        self.training = model.training
        sign(self, self.apart)

    @property
    def model(self) -> nn.Module:
        """The rewritten model, whose parameters these are."""
        return self._pairs[-1][0]

    def _copy(self, module: nn.Module, name: str, exits: Mapping[str, nn.Module]) -> nn.Module:
        """The module with its exits replaced; modules without exits are the model's own."""
        if name in exits:
            return exits[name]
        inside = f"{name}." if name else ""
        if not any(key.startswith(inside) for key in exits):
            return module
        new = object.__new__(type(module))
        vars(new).update(vars(module))
        vars(new)["_modules"] = {
            key: child and self._copy(child, f"{inside}{key}", exits)
            for key, child in module._modules.items()
        }
        self._pairs.append((module, new))
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "forward"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        sign(self, self.apart)

    def train(self, mode: bool = True) -> Members:
        """Set the training flag of the model too."""
        for module, _ in self._pairs:
            module.training = mode
        super().train(mode)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output for every member: tensors ``[m, batch, ...]``, structure as it is."""
        if not torch.compiler.is_compiling():
            self._follow()
        return self._by_member(self.apart(*args, **kwargs))

    def _follow(self) -> None:
        """Flags and plain attributes of the model's modules, as they are now."""
        for module, copy in self._pairs:
            own = vars(copy)["_modules"]
            vars(copy).update(vars(module))
            vars(copy)["_modules"] = own

    def _by_member(self, output: Any) -> Any:
        """Members on an axis of their own, in front; values that are not theirs are repeated."""
        apart = iter(self.behind.apart)

        def one(tensor: Tensor) -> Tensor:
            own = next(apart, None)
            if own is None:
                raise RewriteError(
                    f"this {type(self.model).__name__} returns more than the "
                    f"{len(self.behind.apart)} tensors that it returns in evaluation mode",
                    advice="ask its members in evaluation mode, or switch its extra outputs off",
                )
            if not own:
                return tensor.expand(self.count, *tensor.shape)
            if not self.behind.rows:
                return tensor
            return torch.unflatten(tensor, 0, (self.count, -1))

        return one(output) if isinstance(output, Tensor) else map_tensors(one, output)

    def prove(self, inputs: Any) -> None:
        """Run once, beside the model: shapes and the mean must be right.

        Raises:
            RewriteError: if they are not: something behind the exits mixes rows.
        """
        model = self.model
        if any(parameter.is_meta for parameter in model.parameters()):
            return
        with undisturbed(model), undisturbed(self):
            wanted = tensors(called(model, inputs))
            try:
                found = tensors(called(self, inputs))
                right = [_agree(z, y, self.count) for z, y in zip(found, wanted, strict=True)]
            except (RuntimeError, ValueError) as error:
                if short_of_memory(error):
                    raise
                raise self._mixed(first_line(error)) from error
        if not all(right):
            raise self._mixed(f"output {right.index(False)} is not the mean of the members'")

    def _mixed(self, why: str) -> RewriteError:
        name = type(self.model).__name__
        return RewriteError(
            f"the members of this {name} cannot be asked one by one, its forward mixes rows "
            f"behind their sum: {why}",
            advice="use z.shape[0], not the input's, in views behind the last layer",
        )


def _agree(found: Tensor, wanted: Tensor, count: int) -> bool:
    if found.shape != (count, *wanted.shape):
        return False
    if not wanted.is_floating_point():
        return True
    error = (found.double().mean(0) - wanted.double()).abs().max() if wanted.numel() else 0.0
    scale = found.double().abs().max() if wanted.numel() else 1.0
    return not bool(error > CLOSE * scale)


def _exit(model: nn.Module, layer: RegionLayer, change: Change, behind: Behind) -> MemberExit:
    """The twin of an exit that keeps its members apart."""
    module = model.get_submodule(layer.name)
    if layer.op not in _EXITS:
        raise RewriteError(
            f"'{layer.name}' ({layer.op}) is an exit whose members cannot be kept apart",
            advice="register an operator rule whose exits are linear layers or convolutions",
        )
    kind, stock = _EXITS[layer.op]
    try:
        expect(module, (*(SCALED[item] for item in stock), *stock))
    except RewriteError as error:
        raise RewriteError(f"'{layer.name}': {error.message}", advice=error.advice) from error
    if any(getattr(module, hooks) for hooks in CALL_HOOKS):
        raise RewriteError(
            f"'{layer.name}' carries hooks, which members that are kept apart would pass by",
            advice="remove its hooks, or hook the model",
        )
    m, widths = change.split.multiplicity, change.split.widths
    times = m * layer.times * sampled_layer(layer.op).inner(layer)
    parts = tuple(times * widths[source] for source in layer.sources)
    return kind(module, parts, m, rows=behind.rows)


def _inputs(model: nn.Module, example_inputs: Any) -> Any:
    """Example inputs as arguments, on the model's device and in its type."""
    if example_inputs is None:
        try:
            drawn: Any = draw_inputs(model)
        except UsageError as error:
            raise UsageError(
                error.message, advice="give them: cerewrite.members(model, example_inputs)"
            ) from None
        return map_tensors(lambda tensor: _as(model, tensor), drawn)
    if isinstance(example_inputs, Tensor):
        return (example_inputs,)
    return dict(example_inputs) if isinstance(example_inputs, Mapping) else tuple(example_inputs)


def _as(model: nn.Module, tensor: Tensor) -> Tensor:
    first = next(model.parameters())
    if not tensor.is_floating_point():
        return tensor.to(first.device)
    return tensor.to(first.device, first.dtype)
