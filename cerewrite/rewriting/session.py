"""One rewriting under way: the model, what changes in it, what has been swapped so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from cerewrite.errors import RewriteError
from cerewrite.ir import PerChannel, Plan, Region, RegionLayer, Split
from cerewrite.nn import NumberModule, ParameterModule, get_parameter, put_parameter
from cerewrite.runtime.aliases import aliases
from cerewrite.runtime.copies import carries_hooks


@dataclass(frozen=True, slots=True)
class Change:
    """A region with the split that it gets."""

    region: Region
    split: Split

    def width(self, module: PerChannel) -> int:
        """Width of one member at a per-channel module."""
        return self.region.width_of(module, self.split.widths)


class Session:
    """What passes see and do: read the plan's changes, swap submodules.

    Args:
        model: the module that is rewritten, in place.
        plan: what to do.

    Attributes:
        model: as given.
        plan: as given.
        changes: the regions that change; splits that keep a region as it is are left out.
        originals: the modules that were swapped out, by qualified name.

    Raises:
        RewriteError: if the plan contradicts itself.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.model = model
        self.plan = plan
        self.changes = tuple(changes_of(plan))
        self.originals: dict[str, nn.Module] = {}
        self._aliases = aliases(model)
        self._ties = Counter(
            id(p) for m in model.modules() for p in m._parameters.values() if p is not None
        )

    def layers(self) -> Iterator[tuple[Change, RegionLayer]]:
        """The sampled layers of all changing regions."""
        for change in self.changes:
            for layer in change.region.layers:
                yield change, layer

    def modules(self) -> Iterator[tuple[Change, PerChannel]]:
        """The per-channel modules of all changing regions."""
        for change in self.changes:
            for module in change.region.modules:
                yield change, module

    def get(self, name: str) -> nn.Module:
        """The module that now has a qualified name; a free parameter or a number comes held.

        Raises:
            RewriteError: if there is none.
        """
        try:
            return get_parameter(self.model, name)
        except AttributeError:
            raise RewriteError(
                f"the model has no module '{name}'",
                advice="make the plan again for this model",
            ) from None

    def change(self, name: str, build: Callable[[nn.Module], nn.Module]) -> None:
        """Swap the module of that name for what ``build`` makes of it.

        Raises:
            RewriteError: as `swap`; errors of ``build`` are named after the module.
        """
        try:
            new = build(self.get(name))
        except RewriteError as error:
            raise RewriteError(f"'{name}': {error.message}", advice=error.advice) from error
        self.swap(name, new)

    def swap(self, name: str, new: nn.Module) -> None:
        """Put ``new`` in the place of the module of that name, and remember the original.

        Raises:
            RewriteError: if the old module is tied elsewhere too, or hooked.
        """
        old = self.get(name)
        if name not in self.originals:
            self._refuse_shared(name, old)
            self.originals[name] = old
        self.put(name, new)

    def put(self, name: str, module: nn.Module) -> None:
        """Put a module under all its names, whatever is there."""
        set_submodule(self.model, name, module, self._aliases)

    def undo(self) -> None:
        """Put every original back."""
        for name, original in self.originals.items():
            self.put(name, original)
        self.originals.clear()

    def renamed(self) -> tuple[tuple[str, str], ...]:
        """Old and new name of every parameter of a swapped module, in the model's order.

        A parameter keeps its name where its module has one of that name still; its shape
        changes all the same. A parameter that is gone has the new name "".
        """
        return renames(self.model, self.originals)

    def _refuse_shared(self, name: str, module: nn.Module) -> None:
        why = None
        if not name:
            why = "is the model itself"
        elif any(self._ties[id(parameter)] > 1 for parameter in module.parameters()):
            why = "shares a parameter with another module"
        elif carries_hooks(module):
            why = "carries hooks that would be lost"
        if why is not None:
            raise RewriteError(
                f"'{name}' cannot be swapped: it {why}",
                advice="exclude the layer, or make the plan again for this model",
            )


def renames(model: nn.Module, originals: Mapping[str, nn.Module]) -> tuple[tuple[str, str], ...]:
    """See `Session.renamed`."""
    pairs = []
    others = aliases(model)
    under = [
        (at, module) for name, module in originals.items() for at in (name, *others.get(name, ()))
    ]
    for name, original in under:
        if isinstance(original, NumberModule):
            continue
        if isinstance(original, ParameterModule):
            pairs.append((name, name))
            continue
        kept = {parameter for parameter, _ in model.get_submodule(name).named_parameters()}
        for parameter, _ in original.named_parameters():
            full = f"{name}.{parameter}"
            pairs.append((full, full if parameter in kept else ""))
    return tuple(pairs)


def set_submodule(
    model: nn.Module, name: str, new: nn.Module, others: Mapping[str, Sequence[str]]
) -> None:
    """Put a module, or a held parameter, under a qualified name, whatever container holds it.

    Args:
        model: the model.
        name: the name.
        new: what to put there.
        others: further names of the model's modules (`cerewrite.runtime.aliases`).
    """
    for place in (name, *others.get(name, ())):
        put_parameter(model, place, new)


def changes_of(plan: Plan) -> Iterator[Change]:
    """The splits that change something, each with its region; refuses a contradictory plan."""
    regions = {region.name: region for region in plan.regions}
    seen: set[str] = set()
    for split in plan.splits:
        region = regions.get(split.region)
        if region is None:
            raise _contradiction(f"splits the region '{split.region}', which it does not describe")
        if split.region in seen:
            raise _contradiction(f"splits the region '{split.region}' twice")
        seen.add(split.region)
        if len(split.widths) != len(region.classes):
            raise _contradiction(
                f"gives {len(split.widths)} widths for the region '{split.region}', "
                f"which has {len(region.classes)} classes"
            )
        if min((split.multiplicity, *split.widths)) < 1:
            raise _contradiction(f"asks for members without channels in '{split.region}'")
        if split.design != region.design:
            yield Change(region, split)


def _contradiction(what: str) -> RewriteError:
    return RewriteError(f"the plan {what}", advice="mend plan.json or make the plan again")
