"""Forwards whose widths members can share, in their smallest form; and those that they cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import cerewrite
from cerewrite.errors import NoClosedFormError, PlanError
from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.frontend.tracing import trace

WIDTH = 24
Forward = Callable[..., Tensor]


class Net(nn.Module):
    """Layers by name, and a forward that a test writes."""

    def __init__(self, forward: Forward, **parts: nn.Module) -> None:
        super().__init__()
        self.written = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.written(self, x) if y is None else self.written(self, x, y)


def dense(**more: nn.Module) -> dict[str, nn.Module]:
    layers = {name: nn.Linear(WIDTH, WIDTH) for name in ("a", "b", "c")}
    return {"up": nn.Linear(12, WIDTH), **layers, "down": nn.Linear(WIDTH, 3), **more}


def x(*shape: int) -> Tensor:
    return torch.randn(shape or (2, 12), generator=torch.Generator().manual_seed(0))


def selective(self: Any, x: Tensor) -> Tensor:
    """Selective kernels: branches on an axis of their own, weighed by a softmax over it."""
    x = self.up(x).relu()
    branches = torch.stack([self.a(x).relu(), self.b(x).relu()], dim=1)
    gate = self.c(branches.sum(1).mean((2, 3))).relu()
    weights = torch.stack([self.fa(gate), self.fb(gate)], dim=1).softmax(1)
    return self.down((branches * weights[..., None, None]).sum(1).mean((2, 3)))


def kernels() -> dict[str, nn.Module]:
    conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2)
    linear = {name: nn.Linear(WIDTH, WIDTH) for name in ("c", "fa", "fb")}
    ends = {"up": nn.Conv2d(3, WIDTH, 3), "down": nn.Linear(WIDTH, 3)}
    return {**ends, "a": conv[0], "b": conv[1], **linear}


def streams(join: Callable[[list[Tensor]], Tensor]) -> Forward:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.up(x).relu()
        joined = join([self.a(x).relu(), self.b(x).relu(), x])
        return self.down(self.c(joined).relu())

    return forward


STACKS: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "summed": lambda v: torch.stack(v).sum(0),
    "mean behind": lambda v: torch.stack(v, -1).mean(-1),
    "largest": lambda v: torch.stack(v, 1).amax(1),
    "picked": lambda v: torch.stack(v, 1)[:, 0] + torch.stack(v, dim=-1).unbind(-1)[1],
    "channels first": lambda v: torch.stack(v, 2).flatten(1).unflatten(1, (-1, 3)).sum(2),
}


def decoder(dims: int, exit: bool) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """An upsampling layer reads a skip connection side by side with what lies below it."""
    conv, up = getattr(nn, f"Conv{dims}d"), getattr(nn, f"ConvTranspose{dims}d")
    parts = {"up": conv(2, WIDTH, 3, padding=1), "b": conv(WIDTH // 2, 8, 1)}
    parts["a"] = conv(WIDTH, WIDTH // 2, 3, padding=1)
    parts["c"] = up(WIDTH + 8, 2 if exit else 16, 2, stride=2)
    parts["down"] = nn.Identity() if exit else conv(16, 2, 1)

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.up(x).relu()
        below = self.b(self.a(x).relu()).relu()
        return self.down(self.c(torch.cat([x, below], 1)).relu())

    return Net(forward, **parts), (x(2, 2, *[4] * dims),)


def siamese(join: Callable[[Tensor, Tensor], Tensor], down: int = WIDTH) -> Forward:
    """One encoder for two inputs, whose codes are joined."""

    def forward(self: Any, x: Tensor, y: Tensor) -> Tensor:
        first, second = (self.b(self.a(self.norm(self.up(z)).relu()).relu()) for z in (x, y))
        return self.head(self.c(join(first, second)).relu())

    return forward


def pair(join: Callable[[Tensor, Tensor], Tensor], wide: int = WIDTH) -> nn.Module:
    more = {"norm": nn.LayerNorm(WIDTH), "c": nn.Linear(wide, WIDTH), "head": nn.Linear(WIDTH, 3)}
    parts = dense(**more)
    del parts["down"]
    return Net(siamese(join), **parts)


def repeated(self: Any, x: Tensor) -> Tensor:
    """One block called three times on a residual stream."""
    x = self.up(x)
    for _ in range(3):
        x = x + self.b(self.a(self.norm(x)).relu())
    return self.down(self.c(x).relu())


def mixed(self: Any, x: Tensor) -> Tensor:
    """One depthwise convolution and one norm, called on maps of two sizes."""
    x = self.norm(self.mix(self.up(x))).relu()
    x = self.norm(self.mix(torch.nn.functional.max_pool2d(self.a(x), 2))).relu()
    return self.down(self.b(x).relu().mean((2, 3)))


def mixing() -> nn.Module:
    parts = {name: nn.Conv2d(WIDTH, WIDTH, 1) for name in ("a", "b")}
    parts |= {"up": nn.Conv2d(3, WIDTH, 3), "mix": nn.Conv2d(WIDTH, WIDTH, 3, groups=WIDTH)}
    parts |= {"norm": nn.BatchNorm2d(WIDTH), "down": nn.Linear(WIDTH, 3)}
    return Net(mixed, **parts)


def gated(dims: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Convolutions that write two parts: a gate and what it weighs; one reads a concatenation."""
    conv = getattr(nn, f"Conv{dims}d")
    parts = {"up": conv(3, WIDTH, 1), "a": conv(WIDTH, 2 * WIDTH, 3, padding=1)}
    parts |= {"b": conv(2 * WIDTH, 2 * WIDTH, 1), "down": conv(WIDTH, 3, 1)}

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.up(x).relu()
        value, gate = self.a(x).chunk(2, 1)
        value, gate = self.b(torch.cat([value * gate.sigmoid(), x], 1)).chunk(2, dim=1)
        return self.down(value * gate.sigmoid())

    return Net(forward, **parts), (x(2, 3, *[4] * dims),)


def selected(self: Any, x: Tensor) -> Tensor:
    """Selective kernels whose logits one convolution writes for both branches."""
    x = self.up(x).relu()
    branches = torch.stack([self.a(x).relu(), self.b(x).relu()], dim=1)
    gate = self.c(branches.sum(1).mean((2, 3), keepdim=True)).relu()
    weights = self.both(gate).unflatten(1, (2, -1)).softmax(1)
    return self.down((branches * weights).sum(1).mean((2, 3)))


def by_number(self: Any, x: Tensor) -> Tensor:
    """The same, by the number of branches that the module holds."""
    x = self.up(x).relu()
    branches = torch.stack([self.a(x).relu(), self.b(x).relu()], dim=1)
    logits = self.both(self.c(branches.sum(1).mean((2, 3), keepdim=True)).relu())
    batch, channels, height, width = logits.shape
    logits = logits.view(batch, self.paths, channels // self.paths, height, width)
    return self.down((branches * logits.softmax(dim=1)).sum(1).mean((2, 3)))


def selecting(forward: Forward = selected) -> nn.Module:
    parts = {name: layer for name, layer in kernels().items() if name in ("up", "a", "b", "down")}
    logits = {"c": nn.Conv2d(WIDTH, 16, 1), "both": nn.Conv2d(16, 2 * WIDTH, 1)}
    net = Net(forward, **parts, **logits)
    net.paths = 2
    return net


def named_twice() -> nn.Module:
    """One layer registered and called under two names, and a norm too."""
    layer, norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
    hidden = [layer, norm, nn.ReLU(), layer, norm, nn.ReLU()]
    return nn.Sequential(nn.Linear(12, WIDTH), nn.ReLU(), *hidden, nn.Linear(WIDTH, 3))


def listed_twice() -> nn.Module:
    """Blocks registered one by one and in a list, as DynUNet has them."""
    parts = dense()
    blocks = nn.ModuleList([parts["b"], nn.ReLU(), parts["a"]])

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.up(x).relu()
        for block in self.blocks:
            x = block(x)
        return self.down(self.c(x.relu()).relu())

    return Net(forward, **parts, blocks=blocks)


CONVERTED: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "selective kernels": lambda: (Net(selective, **kernels()), (x(2, 3, 6, 6),)),
    "selective kernels, logits of one layer": lambda: (selecting(), (x(2, 3, 6, 6),)),
    "selective kernels, by number": lambda: (selecting(by_number), (x(2, 3, 6, 6),)),
    "gated convolutions, 1d": lambda: gated(1),
    "gated convolutions, 2d": lambda: gated(2),
    "gated convolutions, 3d": lambda: gated(3),
    **{
        f"stack, {name}": lambda join=join: (Net(streams(join), **dense()), (x(),))
        for name, join in STACKS.items()
    },
    "upsampled concatenation, 1d": lambda: decoder(1, exit=False),
    "upsampled concatenation, 2d": lambda: decoder(2, exit=False),
    "upsampled concatenation, 3d": lambda: decoder(3, exit=False),
    "upsampled concatenation, exit": lambda: decoder(2, exit=True),
    "siamese, apart": lambda: (pair(lambda a, b: (a - b).abs()), (x(), 1 + x())),
    "siamese, side by side": lambda: (
        pair(lambda a, b: torch.cat([a, b], 1), 2 * WIDTH),
        (x(), 1 + x()),
    ),
    "a block three times": lambda: (Net(repeated, **dense(norm=nn.LayerNorm(WIDTH))), (x(),)),
    "a recurrence": lambda: (
        Net(
            lambda self, x: self.down(self.a(self.a(self.a(self.up(x)).relu()).relu()).relu()),
            **{k: v for k, v in dense().items() if k not in "bc"},
        ),
        (x(),),
    ),
    "one table for two": lambda: (
        Net(
            lambda self, x: self.down(self.b(self.a(self.table(x) + self.table(x + 1)).relu())),
            table=nn.Embedding(9, WIDTH),
            **{k: v for k, v in dense().items() if k not in ("up", "c")},
        ),
        (torch.tensor([1, 5]),),
    ),
    "one layer under two names": lambda: (named_twice(), (x(),)),
    "one list under two names": lambda: (listed_twice(), (x(),)),
    "a depthwise convolution and a norm twice": lambda: (mixing(), (x(2, 3, 12, 12),)),
}


def model_of(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return CONVERTED[name]()


@pytest.mark.thorough
@pytest.mark.parametrize("name", CONVERTED)
def test_separable_models_convert(name: str, tmp_path: Path) -> None:
    """Every check passes, and members reach every hidden width."""
    model, inputs = model_of(name)
    result = cerewrite.convert(
        model, inputs, scope="network", gain="he", estimator="jackknife", draws=2, allow="all"
    )
    checks = {check.name: check for check in result.verification.checks}
    assert result.verification.passed and checks["membership"].value < 1e-10
    assert {name for region in result.plan.regions for name in region.classes} == {
        width.name for width in trace(model, inputs).widths if width.readers
    }
    assert result.plan.planned.params == sum(p.numel() for p in result.model.parameters())
    cerewrite.export_onnx(result.model, tmp_path / "model.onnx", inputs)


@pytest.mark.thorough
def test_a_layer_is_one_under_all_its_names(tmp_path: Path) -> None:
    """Rewritten, saved, read back and put back; old and new parameters by every name."""
    net, inputs = model_of("one list under two names")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = cerewrite.convert(
        net, inputs, scope="network", gain="he", estimator="jackknife", draws=2, allow="all"
    )
    model = result.model
    assert model.b is model.blocks[0] and model.a is model.blocks[2] and net.b is net.blocks[0]
    assert {old for old, _ in result.renamed} == before.keys()
    assert {new for _, new in result.renamed} >= {"b.weight", "blocks.0.weight"}
    cerewrite.save(tmp_path / "out", model, result.plan)
    read = cerewrite.load(tmp_path / "out", model=net)
    assert torch.equal(read(*inputs), model(*inputs)) and read.b is read.blocks[0]
    cerewrite.revert(model)
    assert model.b is model.blocks[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_costs_of_a_layer_are_those_of_all_its_calls() -> None:
    model = mixing()
    traced = trace(model, (x(2, 3, 12, 12),))
    with FlopCounterMode(display=False) as counter:
        model(x(2, 3, 12, 12))
    assert counter.get_total_flops() == 2 * traced.flops
    assert [len(layer.nodes) for layer in traced.layers] == [1, 2, 1, 1, 1]
    (mix,) = (m for w in traced.widths for m in w.modules if m.name == "mix")
    assert mix.flops * WIDTH == next(y.flops for y in traced.layers if y.name == "mix")


def kappas(forward: Forward, *inputs: Tensor) -> dict[str, float]:
    """What single units do, before a level is sought."""
    torch.manual_seed(0)
    net = Net(forward, **dense())
    assumption = Assumption(gain=2.0, draws=2)
    found = ESTIMATORS["jackknife"].estimate(trace(net, inputs), net, inputs, assumption)
    return {y.layer: y.kappa for y in found.layers}


def test_the_jackknife_sees_all_calls_of_a_layer() -> None:
    """Two calls on one value are twice that value: the same influences."""

    def code(self: Any, x: Tensor) -> Tensor:
        return self.b(self.a(self.up(x).relu()).relu()).relu()

    once = kappas(lambda self, x: self.down(2 * code(self, x)), x())
    twice = kappas(lambda self, x: self.down(code(self, x) + code(self, x)), x())
    assert twice == pytest.approx(once, rel=1e-5) and once["a"] > 0


@pytest.mark.thorough
def test_the_jackknife_of_a_siamese_net_agrees_with_draws() -> None:
    """The sum of the layers' kappas within 20 % of nu; four standard errors are 30 % of it."""
    torch.manual_seed(0)
    net, inputs = pair(lambda a, b: a * b), (x(), x().flip(0))
    drawn = cerewrite.analyze(net, inputs, estimator="monte-carlo", gain="he", draws=2000).nu
    found = cerewrite.analyze(net, inputs, estimator="jackknife", gain="he", draws=16)
    assert drawn.stderr is not None and 4 * drawn.stderr < 0.3 * drawn.value
    assert found.nu.value == pytest.approx(drawn.value, abs=0.2 * drawn.value + 3 * drawn.stderr)


def test_the_closed_form_refuses_layers_whose_calls_share_their_weights() -> None:
    with pytest.raises(NoClosedFormError, match="'a', called 3 times"):
        model, inputs = model_of("a recurrence")
        cerewrite.analyze(model, inputs, estimator="analytic")


def refused(forward: Forward, **more: nn.Module) -> str:
    """The first reason for which a model of dense layers keeps its widths."""
    torch.manual_seed(0)
    net = Net(forward, **dense(**more))
    with pytest.raises(PlanError):
        cerewrite.plan(cerewrite.analyze(net, (x(),), scope="network", gain="he", draws=8))
    return next(iter(trace(net, (x(),)).widths)).pins[0].code


def test_channels_that_are_summed_by_threes_are_divided_by_threes() -> None:
    def threes(v: list[Tensor]) -> Tensor:
        return torch.stack(v, 1).flatten(1).unflatten(1, (-1, 3)).sum(2)

    torch.manual_seed(0)
    net = Net(streams(threes), **dense())
    analysis = cerewrite.analyze(net, (x(),), estimator="jackknife", scope="network", draws=2)
    plan = cerewrite.plan(analysis, members=4, allow="all", min_gain=0.0)
    wide = cerewrite.apply(plan, net)
    assert wide.a.out_features % 12 == 0 and wide.c.reorder.order.numel() == wide.a.out_features
    assert cerewrite.verify(net, wide, plan, (x(),)).passed


def test_a_stack_whose_axis_mixes_with_the_channels_is_refused() -> None:
    def halves(v: list[Tensor]) -> Tensor:
        return torch.stack(v, 1).flatten(1).unflatten(1, (2, -1)).sum(1)

    assert refused(streams(halves), c=nn.Linear(3 * WIDTH // 2, WIDTH)) == "not-member-wise"


ROLES: dict[str, tuple[Forward, str, set[str]]] = {
    "input and hidden": (
        lambda self, x: self.down(self.a(self.a(x.repeat(1, 2))).relu()), "shared", {"a"},
    ),
    "norm of input and hidden": (
        lambda self, x: self.down(
            self.norm(self.a(self.up(x))) + self.norm(x.repeat(1, 2))
        ), "shared", {"a"},
    ),
    "hidden and output": (
        lambda self, x: self.a(self.b(self.a(self.up(x).relu()).relu()).relu()),
        "model-output", {"a"},
    ),
    "one value and two side by side": (
        lambda self, x: self.down(
            self.c(self.a(self.up(x))) + self.c(torch.cat([self.small(x), self.small(x + 1)], 1))
        ), "concatenation-mismatch", {"a", "small"},
    ),
    "twice in one call": (
        lambda self, x: self.down(self.b(self.both(self.up(x)).relu()).relu()),
        "custom-module", {"up", "both"},
    ),
}  # fmt: skip


class Both(nn.Linear):
    """Uses its weight for two products."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.weight).relu(), self.weight)


@pytest.mark.parametrize("name", ROLES)
def test_modules_with_two_roles_keep_their_widths(name: str) -> None:
    forward, code, kept = ROLES[name]
    more = {"small": nn.Linear(12, WIDTH // 2), "both": Both(WIDTH, WIDTH)}
    net = Net(forward, **dense(norm=nn.LayerNorm(WIDTH), **more))
    pins = {w.name: {pin.code for pin in w.pins} for w in trace(net, (x(),)).widths}
    assert all(code in pins[width] for width in kept)
    assert {width for width, codes in pins.items() if code in codes} <= {
        *kept,
        *(f"{width}@1" for width in kept),
        "down",
    }


def test_branches_are_independent_in_the_closed_form() -> None:
    """A sum over a stack is the sum of what was stacked; one value twice is that value twice."""

    def nu(forward: Forward) -> float:
        torch.manual_seed(0)
        net = Net(forward, **dense())
        return cerewrite.analyze(net, (x(),), estimator="analytic", gain="he").nu.value

    plain = nu(streams(lambda v: v[0] + v[1]))
    assert nu(streams(lambda v: torch.stack(v[:2], 1).sum(1))) == pytest.approx(plain)
    assert nu(streams(lambda v: torch.stack(v, 1)[:, 0] + v[1])) == pytest.approx(plain)
    assert nu(streams(lambda v: torch.stack([v[0]] * 2, 1).sum(1))) == pytest.approx(
        nu(streams(lambda v: v[0] * 2))
    )
    with pytest.raises(NoClosedFormError, match="9 branches"):
        nu(streams(lambda v: torch.stack(v * 3, 1).sum(1)))


class ScaledHeads(nn.Module):
    """Linear attention over heads of two scales: a view of a concatenation, and a third of it."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 4
        self.stem, self.more = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 1)
        self.qkv = nn.Conv2d(32, 96, 1)
        self.scale = nn.Sequential(
            nn.Conv2d(96, 96, 3, padding=1, groups=96), nn.Conv2d(96, 96, 1, groups=8)
        )
        self.proj, self.head = nn.Conv2d(64, 32, 1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.more(torch.relu(self.stem(x)))
        qkv = self.qkv(x)
        both = torch.cat([qkv, self.scale(qkv)], 1).flatten(2)
        q, k, v = both.reshape(len(x), -1, 3 * self.size, both.shape[-1]).chunk(3, 2)
        y = v @ torch.softmax(k, -1).transpose(-1, -2) @ torch.relu(q)
        x = x + self.proj(y.reshape(len(x), -1, *x.shape[2:]))
        return self.head(torch.relu(x).mean((2, 3)))


def test_parts_of_heads_over_a_concatenation_are_read_part_by_part() -> None:
    torch.manual_seed(0)
    model, x = ScaledHeads(), torch.randn(2, 3, 4, 4)
    traced = trace(model, (x,))
    proj = next(layer for layer in traced.layers if layer.name == "proj")
    sizes = {width.name: width.size for width in traced.widths}
    assert proj.times * sum(sizes[name] for name in proj.sources) == proj.in_channels == 64
    found = cerewrite.analyze(model, x, scope="network", estimator="jackknife", draws=4)
    (region,) = (estimate.region for estimate in found.regions)
    fixed = {region.name: (2, tuple(size // 2 for size in region.sizes))}
    plan = cerewrite.plan(found, allow="all", min_width=4, fixed=fixed)
    new = cerewrite.apply(plan, model)
    verification = cerewrite.verify(model, new, plan, x)
    assert plan.splits and verification.passed, verification.failures
