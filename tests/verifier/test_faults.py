"""Planted faults: each must be caught by the check that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cerewrite.ir import Plan
from cerewrite.nn import BlockDiagonalLinear
from cerewrite.rewriting import rewrite
from cerewrite.verifier import verify
from tests.rewriting.builders import layer, make_plan, region
from tests.rewriting.cases import CASES


class Shuffled(BlockDiagonalLinear):
    """Hands every member's output to its neighbour."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).roll(self.out_features // self.members, -1)


class Unbiased(nn.Linear):
    """Forgets its bias."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight)


class Doubled(nn.Linear):
    """Adds its bias once per member."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.bias


class ChannelShuffle(nn.Conv2d):
    """Reads its groups in the wrong order."""

    def forward(self, input: Tensor) -> Tensor:
        batch, channels, *space = input.shape
        grouped = input.view(batch, self.groups, channels // self.groups, *space)
        return super().forward(grouped.transpose(1, 2).reshape(input.shape))


def become(name: str, kind: type[nn.Module]) -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        model.get_submodule(name).__class__ = kind

    return plant


def replace_by(name: str, build: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        old = model.get_submodule(name)
        model.get_submodule(parent)._modules[child] = build(old)

    return plant


def mixing_norm(old: nn.Module) -> nn.Module:
    """One norm over all members together."""
    return nn.LayerNorm(old.features)


def few_groups(old: nn.Module) -> nn.Module:
    return nn.GroupNorm(1, old.num_channels)


def dense(old: nn.Module) -> nn.Module:
    return nn.Linear(old.in_features, old.out_features)


FAULTS = {
    "wrong member order": ("mlp_layer_norm", become("3", Shuffled)),
    "lost exit bias": ("tokens", become("4", Unbiased)),
    "exit bias per member": ("tokens", become("4", Doubled)),
    "norm over all members": ("mlp_layer_norm", replace_by("1", mixing_norm)),
    "groups across members": ("cnn", replace_by("4", few_groups)),
    "channel shuffle": ("resnet", become("blocks.0.conv2", ChannelShuffle)),
    "dense interior": ("tokens", replace_by("2", dense)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_membership_catches(fault: str) -> None:
    name, plant = FAULTS[fault]
    case = CASES[name]
    model = case.model()
    plan = case.plan(model)
    new = rewrite(plan, model).model
    assert "membership" not in failures(model, new, plan, case.inputs())
    plant(new)
    assert "membership" in failures(model, new, plan, case.inputs())


def failures(model: nn.Module, new: nn.Module, plan: Plan, inputs: tuple[Tensor, ...]) -> set[str]:
    return {check.name for check in verify(model, new, plan, inputs).failures}


def dead(model: nn.Module) -> None:
    """Every unit behind the entry is off: nothing to compare, nothing to learn."""

    class Off(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            return input * 0

    model[3] = Off()


def detached(model: nn.Module) -> None:
    class Detached(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            return input.detach()

    model[1] = Detached()


def half(model: nn.Module) -> None:
    model.register_forward_hook(lambda module, args, out: out.half())


def trimmed(model: nn.Module) -> None:
    model.register_forward_hook(lambda module, args, out: out[..., :-1])


def broken(model: nn.Module) -> None:
    del model[4]
    model.append(nn.Linear(3, 3))


def exploding(model: nn.Module) -> None:
    model[0].weight.data.fill_(torch.inf)


@pytest.mark.parametrize(
    ("plant", "caught"),
    [
        (dead, {"membership", "gradients", "signal"}),
        (detached, {"gradients"}),
        (half, {"signature"}),
        (trimmed, {"signature"}),
        (broken, {"signature", "params", "budget", "membership", "gradients", "signal"}),
        (exploding, {"membership", "gradients", "signal"}),
    ],
)
def test_other_faults_are_caught(plant: Callable[[nn.Module], None], caught: set[str]) -> None:
    case = CASES["tokens"]
    model = case.model()
    plan = case.plan(model)
    new = rewrite(plan, model).model
    plant(new)
    found = failures(model, new, plan, case.inputs())
    assert found & caught == caught - ({"params"} if plant is broken else set())


class Listed(nn.Module):
    """Calls its layers through a plain list, which a swap of submodules does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(6, 6) for _ in range(3))
        self.layers = [self.first, self.second, self.third]

    def forward(self, x: Tensor) -> Tensor:
        for module in self.layers:
            x = module(x).relu()
        return x


def test_a_swap_that_does_not_reach_the_forward_is_caught() -> None:
    torch.manual_seed(0)
    model, inputs = Listed(), (torch.randn(3, 6),)
    names = ("first", "second", "third")
    layers = [layer(model, n, i - 1, i if i < 2 else -1) for i, n in enumerate(names)]
    plan = make_plan(model, inputs, (region(model, layers),), ((2, (3, 4)),))
    new = rewrite(plan, model).model
    found = failures(model, new, plan, inputs)
    assert found == {"flops", "membership", "gradients", "signal"}


class Swapped(BlockDiagonalLinear):
    """Hands every member's output to its neighbour."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).flip(-1)


@pytest.mark.parametrize("kind", [BlockDiagonalLinear, Swapped])
def test_members_that_are_dead_on_the_inputs_are_compared_all_the_same(
    kind: type[nn.Module],
) -> None:
    """Found by the laws: narrow members may all be dead on the few example inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    inputs = (torch.randn(3, 6),)
    layers = [layer(model, n, i - 1, i if i < 2 else -1) for i, n in enumerate("024")]
    plan = make_plan(model, inputs, (region(model, layers),), ((4, (1, 1)),))
    new = rewrite(plan, model).model
    with torch.no_grad():
        new[2].weight.abs_().neg_()
        new[2].bias.fill_(-1)
    assert not bool((new[:4](*inputs) > 0).any())
    become("2", kind)(new)
    found = failures(model, new, plan, inputs)
    assert found == (set() if kind is BlockDiagonalLinear else {"membership"})


def test_wrong_figures_are_caught() -> None:
    case = CASES["tokens"]
    model = case.model()
    plan = case.plan(model)
    new = rewrite(plan, model).model
    for field in ("params", "flops"):
        figures = replace(plan.planned, **{field: getattr(plan.planned, field) + 1})
        assert failures(model, new, replace(plan, planned=figures), case.inputs()) == {field}
