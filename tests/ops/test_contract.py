"""Laws over every registered operator rule and its tiny cases."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from cerewrite.analysis.kept import SPLIT, saved_bytes
from cerewrite.frontend.tracing import trace
from cerewrite.ir import RegionLayer, Role
from cerewrite.nn import BlockDiagonalLinear, NumberModule, ParameterModule
from cerewrite.ops import FAMILIES, OPRULES, family_of
from cerewrite.ops.base import OpRule
from cerewrite.ops.cases import Case
from cerewrite.ops.free import FreeParameter
from cerewrite.ops.modules import ModuleFamily, ResizableModule, SampledLayer, SplittableLayer

UNCOUNTED = {
    "addcmul": "counted as what it writes; it keeps the two factors",
    "attention": "counted as what it writes; the fused kernel keeps what it reads too",
    "embedding": "indices are counted at the size of the model's numbers",
    "extreme": "the shape of several outputs is not known",
    "fold": "counted as what it writes; it keeps nothing",
    "centred_direction": "counted as what it writes; each step keeps something",
    "member_layer_norm": "counted as what it writes; it keeps the normalised input too",
    "member_rms_norm": "counted as what it writes; it keeps the normalised input too",
    "rms_direction": "counted as what it writes; each step keeps something",
    "sort": "counted as what it writes; it keeps indices",
    "group_norm": "two figures per group are left out",
    "vector_norm": "counted as what it writes; it keeps what it reads too",
}
"""Rules whose count of what autograd keeps is an estimate, and what is wrong with it."""


def cases(kind: type) -> list[object]:
    """Every case of every rule of a kind."""
    rules = [rule for rule in {**FAMILIES, **OPRULES}.values() if isinstance(rule, kind)]
    return [
        pytest.param(rule, case, id=f"{rule.name}-{number}")
        for rule in rules
        for number, case in enumerate(rule.cases)
    ]


def drawn(module: nn.Module) -> nn.Module:
    """All settings random and positive."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) + 0.5
    return module


def test_no_two_rules_claim_one_operator() -> None:
    claims = Counter(target for rule in OPRULES.values() for target in rule.targets)
    assert [target for target, count in claims.items() if count > 1] == []


@pytest.mark.parametrize("name", {**OPRULES, **FAMILIES})
def test_rules_are_named_documented_and_have_cases(name: str) -> None:
    for registry in (OPRULES, FAMILIES):
        if name in registry:
            rule = registry[name]
            assert rule.name == name and type(rule).__doc__ and rule.cases
    if name in FAMILIES and isinstance(FAMILIES[name], ResizableModule | SplittableLayer):
        assert FAMILIES[name].modules


def test_no_ability_is_there_only_to_raise() -> None:
    """Every class has the methods of its abilities, and an operator rule follows operators."""
    for rule in {**FAMILIES, **OPRULES}.values():
        assert not getattr(type(rule), "__abstractmethods__", None)
        assert isinstance(rule, OpRule) or not hasattr(rule, "moments")
        assert not isinstance(rule, OpRule) or rule.targets


@pytest.mark.parametrize(("rule", "case"), cases(OpRule))
def test_what_is_kept_is_what_autograd_saves(rule: OpRule, case: Case) -> None:
    """Vectors over channels apart, such as a batch's mean and variance."""
    torch.manual_seed(0)
    module, inputs = case.build().train(), case.inputs()
    for tensor in inputs:
        tensor.requires_grad_(tensor.is_floating_point())
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.dim() > 1:
            saved[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    kept: list[Tensor] = []  # so that no storage is used twice
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        module(*inputs)
    traced = trace(module, inputs)
    assert any(op.target in rule.targets or rule.name == "pointwise" for op in traced.ops)
    found = saved_bytes(traced, module, 4)
    counted = sum(size for (_, what), size in found.items() if what != SPLIT)
    assert (counted == sum(saved.values())) == (rule.name not in UNCOUNTED)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("rule", "case"), cases(ResizableModule))
def test_resized_modules_act_member_by_member(
    rule: ResizableModule, case: Case, members: int
) -> None:
    width = 6
    old = case.build().double().eval().requires_grad_(False)
    new = rule.resize(old, members, width)
    check_kept(rule, old, new)
    drawn(new)
    if isinstance(new, NumberModule):
        parts = [rule.member(new, j, members) for j in range(members)]
        assert new.value == members * width and {part.value for part in parts} == {width}
        return
    if isinstance(new, ParameterModule):
        assert isinstance(rule, FreeParameter)
        axis = rule.axis_of(tuple(new.value.shape))
        assert axis is not None
        parts = [rule.member(new, j, members).get_parameter("value") for j in range(members)]
        assert torch.equal(new.value, torch.cat(parts, axis))
        return
    x = case.inputs()[0] if case.integers else wide(case, rule.axis, members * width)
    shares = [x] * members if case.integers else x.chunk(members, rule.axis)
    chunks = enumerate(shares)
    outs = [rule.member(new, j, members)(chunk) for j, chunk in chunks]
    torch.testing.assert_close(new(x), torch.cat(outs, rule.axis))


@pytest.mark.parametrize("role", ["entry", "interior", "exit"])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("rule", "case"), cases(SplittableLayer))
def test_split_layers_are_their_members(
    rule: SplittableLayer, case: Case, members: int, role: Role
) -> None:
    old = case.build().double().eval().requires_grad_(False)
    (layer,) = trace(old, tuple(x.double() for x in case.inputs())).layers
    if layer.op != rule.name:
        return  # a depthwise convolution among the cases: resized, see above
    sources, target = {"entry": ((), 0), "interior": ((0,), 1), "exit": ((0,), -1)}[role]
    n_in, n_out = layer.in_channels, layer.out_channels
    spec = RegionLayer("", rule.name, role, sources, target, n_in, n_out, layer.kernel, 1, True)
    widths = (4, 2)
    new = rule.split(old, spec, members, widths)
    check_kept(rule, old, new)
    assert all(bool(parameter.isnan().all()) for parameter in new.parameters())
    drawn(new)
    wrote, read = (1, members) if role == "exit" else (members, 1)
    views = [v for row in rule.member_weights(new, wrote, read) for v in row]
    assert len(views) == members
    assert sum(view.numel() for view in views) == new.get_parameter("weight").numel()
    narrow = [rule.member(new, spec, j, members, widths) for j in range(members)]
    x = wide(case, rule.axis, n_in if role == "entry" else members * widths[0])
    chunks = [x] * members if role == "entry" else x.chunk(members, rule.axis)
    outs = [member(chunk) for member, chunk in zip(narrow, chunks, strict=True)]
    torch.testing.assert_close(new(x), sum(outs) if role == "exit" else torch.cat(outs, rule.axis))
    for member, view in zip(narrow, views, strict=True):
        torch.testing.assert_close(member.get_parameter("weight").sum(), view.sum())


@pytest.mark.parametrize(("rule", "case"), cases(SampledLayer))
def test_fan_in_is_the_weights_that_one_output_channel_hangs_on(
    rule: SampledLayer, case: Case
) -> None:
    module = case.build()
    output = drawn(module)(*(x + 3 for x in case.inputs())).movedim(rule.axis, 0)
    weight = module.get_parameter("weight")
    counted = []
    for channel in output:
        (gradient,) = torch.autograd.grad(channel.sum(), weight, retain_graph=True)
        counted.append(int(gradient.count_nonzero()))
    assert counted == [rule.fan_in(module)] * len(counted)


@pytest.mark.parametrize(("rule", "case"), cases(ModuleFamily))
def test_every_module_of_a_family_is_known_and_perturbed(rule: ModuleFamily, case: Case) -> None:
    """What a fresh module holds that is constant moves; the same draws give the same module."""
    module = case.build()
    found = family_of(module)
    if not rule.modules:  # a weight that no module is known to hold
        assert found is None
        return
    assert found is not None
    assert found is rule or {*found.modules, *found.built} & set(rule.modules)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found.perturb(
            module,
            lambda like: torch.randn(like.shape, generator=generator).to(like),
            lambda like: torch.rand(like.shape, generator=generator).to(like),
        )
    for name, value in module.state_dict().items():
        constant = before[name].numel() > 1 and bool((before[name] == before[name].max()).all())
        if value.is_floating_point() and constant:
            assert bool((value != before[name]).all()), name


def wide(case: Case, axis: int, size: int) -> Tensor:
    """The case's input with another number of channels."""
    shape = list(case.shapes[0])
    shape[axis] = size
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def check_kept(rule: ModuleFamily, old: nn.Module, new: nn.Module) -> None:
    """Type, names, dtype, train flag and ``requires_grad`` of a rebuilt module."""
    takes_place = (nn.Linear, BlockDiagonalLinear) if rule.name == "linear_turned" else ()
    assert isinstance(new, (*rule.modules, *rule.built, *takes_place))
    assert [name for name, _ in new.named_parameters()] == [n for n, _ in old.named_parameters()]
    assert isinstance(new, NumberModule | ParameterModule) or not new.training
    assert not any(p.requires_grad for p in new.parameters())
    floats = [t for t in (*new.parameters(), *new.buffers()) if t.is_floating_point()]
    assert all(tensor.dtype == torch.float64 for tensor in floats)
