"""Members that can be asked: their mean is the model, each is a narrow network of its own."""

from __future__ import annotations

import copy
import inspect
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import RewriteError, UsageError
from cerewrite.ir import EXIT_SCALES
from cerewrite.nn import MemberLinear
from cerewrite.rewriting import members, rewrite
from cerewrite.rewriting.members import mean_output, single_change
from cerewrite.runtime.trees import tensors
from cerewrite.verifier.members import member_networks
from cerewrite.verifier.perturb import perturb
from tests.models import Inverted, ScaledNet, StagedNet, plain_cnn
from tests.rewriting.builders import Case, layer, make_plan, region
from tests.rewriting.cases import CASES

ALONE = [c for c in CASES.values() if len(c.splits) == 1 and c.splits[0][0] > 1]
"""Every tiny model whose one region runs from input to output."""


def built(case: Case, scale: str = "folded") -> nn.Module:
    model = case.model()
    new = rewrite(replace(case.plan(model), exit_scale=scale), model).model.double().eval()
    perturb(new)
    return new


@pytest.mark.parametrize("number", range(len(ALONE)), ids=[case.name for case in ALONE])
def test_members_are_narrow_networks_and_their_mean_is_the_model(number: int) -> None:
    case = ALONE[number]
    model = built(case, EXIT_SCALES[number % len(EXIT_SCALES)])
    inputs = [tensor.double() for tensor in case.inputs()]
    asked = members(model, tuple(inputs))
    with torch.no_grad():
        whole, outputs = model(*inputs), asked(*inputs)
        change = single_change(model)
        alone = [member(*inputs) for member in member_networks(model, change)]
    scale = outputs.abs().max()
    assert asked.count == case.splits[0][0] and scale > 0
    assert (outputs.mean(0) - whole).abs().max() <= 1e-10 * scale
    assert (outputs - torch.stack(alone)).abs().max() <= 1e-10 * scale
    assert (outputs - whole).abs().max() > 1e-3 * scale  # members differ: the law says something


@pytest.mark.parametrize("name", ["tokens", "decoder", "dense", "towers"])
def test_a_wrong_order_of_the_members_is_caught(name: str) -> None:
    """The planted fault of the law above: channels that are handed to the neighbour."""
    model = built(CASES[name])
    inputs = tuple(tensor.double() for tensor in CASES[name].inputs())
    asked = members(model, inputs)
    exit_ = next(m for m in asked.modules() if hasattr(m, "apart") and hasattr(m, "parts"))
    plain = exit_.apart
    exit_.apart = lambda x, *further: plain(x, *further).roll(1, 0)
    with torch.no_grad():
        alone = [member(*inputs) for member in member_networks(model, single_change(model))]
        assert (asked(*inputs) - torch.stack(alone)).abs().max() > 1e-3


def mlp(tail: Callable[[Tensor], object] | None = None, **further: nn.Module) -> nn.Module:
    """A chain of linears with something behind its last layer."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 6)
            for name, module in further.items():
                self.add_module(name, module)

        def forward(self, x: Tensor) -> object:
            z = self.c(self.b(self.a(x).relu()).relu())
            return z if tail is None else tail(self, x, z)

    return Net()


def rewritten(model: nn.Module, split: tuple[int, tuple[int, ...]] = (3, (4, 5))) -> nn.Module:
    layers = [layer(model, n, i - 1, i if i < 2 else -1) for i, n in enumerate("abc")]
    plan = make_plan(model, (torch.ones(2, 6),), (region(model, layers),), (split,))
    return rewrite(plan, model).model


@dataclass
class Output:
    logits: Tensor
    extra: dict[str, Tensor]


AFFINE = {
    "residual": lambda net, x, z: x - 0.5 * z,
    "view": lambda net, x, z: z.view(z.shape[0], 2, 3).mean(-1),
    "parts": lambda net, x, z: (z[:, :2], {"rest": z[:, 2:] / 3}),
    "class": lambda net, x, z: Output(z, {"input": x, "twice": z + z}),
    "dropout": lambda net, x, z: nn.functional.dropout(z, 0.5, net.training).reshape(-1, 6),
    "cat": lambda net, x, z: torch.cat([z, z[:, :1]], 1).unsqueeze(1),
}


@pytest.mark.parametrize("tail", AFFINE)
def test_what_is_affine_behind_the_exits_keeps_the_members_apart(tail: str) -> None:
    model = rewritten(mlp(AFFINE[tail])).double().eval()
    x = torch.randn(5, 6, dtype=torch.float64)
    asked = members(model, x[:2])
    whole, outputs, mean = model(x), asked(x), mean_output(asked(x))
    assert type(outputs) is type(whole)
    for y, z, back in zip(tensors(whole), tensors(outputs), tensors(mean), strict=True):
        assert z.shape == (3, *y.shape)
        torch.testing.assert_close(back, y, rtol=0, atol=1e-12)
    for j, member in enumerate(member_networks(model, single_change(model))):
        alone = tensors(member(x))
        for z, own in zip(tensors(outputs), alone, strict=True):
            torch.testing.assert_close(z[j], own, rtol=0, atol=1e-12)


REFUSED = {
    "softmax": ({}, lambda net, x, z: z.softmax(-1), r"its forward applies 'softmax'"),
    "second layer": (
        {"d": nn.Linear(6, 2)},
        lambda net, x, z: net.d(z),
        r"'d' \(Linear\) applies 'linear'",
    ),
    "norm": ({"n": nn.LayerNorm(6)}, lambda net, x, z: net.n(z), r"'n' \(LayerNorm\)"),
    "product": ({}, lambda net, x, z: z * z.mean(-1, keepdim=True), "two sums"),
    "quotient": ({}, lambda net, x, z: 1 / z, "divides|reciprocal"),
    "square": ({}, lambda net, x, z: z * z, "two sums"),
    "classes": ({}, lambda net, x, z: z.argmax(-1), "argmax"),
    "stem": (
        {"d": nn.Linear(6, 6)},
        lambda net, x, z: z + net.d(x),
        r"'d' \(Linear\) in front of the members or beside",
    ),
    "batch": ({}, lambda net, x, z: z.view(x.shape[0], -1), "mixes rows"),
    "mixed": ({}, lambda net, x, z: (z + x).flatten(0), "joins the members' sum"),
    "flat": ({}, lambda net, x, z: torch.cat([z, 2 * z], 0), "not the mean"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_members_share_is_named(what: str) -> None:
    further, tail, message = REFUSED[what]
    model = rewritten(mlp(tail, **further))
    with pytest.raises(RewriteError, match=message) as caught:
        members(model, torch.randn(2, 6))
    assert caught.value.advice


def test_a_shared_layer_beside_the_members_may_be_allowed() -> None:
    model = rewritten(mlp(lambda net, x, z: z + net.d(x), d=nn.Linear(6, 6))).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    outputs = members(model, x, allow_shared=True)(x)
    torch.testing.assert_close(outputs.mean(0), model(x), rtol=0, atol=1e-12)


def test_models_without_members_are_refused() -> None:
    x = torch.randn(2, 6)
    with pytest.raises(RewriteError, match="not a rewritten model"):
        members(mlp(), x)
    with pytest.raises(RewriteError, match="one member"):
        members(rewritten(mlp(), (1, (4, 5))), x)
    case = CASES["resnet"]
    model = case.model()
    with pytest.raises(RewriteError, match=r"2 regions.*'blocks.0.conv1', 'named"):
        members(rewrite(case.plan(model), model).model, case.inputs())
    with pytest.raises(UsageError, match="no example inputs") as caught:
        members(rewritten(mlp()))
    assert "cerewrite.members(model, example_inputs)" in caught.value.advice


def test_exits_with_hooks_are_refused() -> None:
    model = rewritten(mlp())
    model.c.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(RewriteError, match="'c' carries hooks"):
        members(model, torch.randn(2, 6))


def test_members_follow_the_model_and_train_its_parameters() -> None:
    model = rewritten(mlp(lambda net, x, z: nn.functional.dropout(z, 0.5, net.training)))
    x = torch.randn(3, 6)
    asked = members(model, x)
    assert {id(p) for p in asked.parameters()} == {id(p) for p in model.parameters()}
    assert model.training and not torch.equal(asked(x), asked(x))
    model.eval()
    assert torch.equal(asked(x), asked(x))
    asked.train()
    assert model.training and model.b.training
    asked.eval()
    before = model(x)
    asked(x)[1].sum().backward()
    grads = model.b.weight.grad.flatten(1).abs().sum(1)
    assert [bool(g > 0) for g in grads] == [False, True, False]  # member 1 alone
    torch.optim.SGD(asked.parameters(), 0.1).step()
    assert not torch.equal(model(x), before)
    model.to(torch.float64)
    assert asked(x.double()).dtype == torch.float64
    twin = copy.deepcopy(asked)
    assert torch.equal(twin(x.double()), asked(x.double()))
    assert list(inspect.signature(twin.forward).parameters) == ["x"]
    again = pickle.loads(
        pickle.dumps(members(built(CASES["tokens"]), torch.randn(2, 5, 6).double()))
    )
    assert again(torch.randn(2, 5, 6).double()).shape == (4, 2, 5, 6)
    model.load_state_dict({k: v * 0 for k, v in model.state_dict().items()})
    assert not asked(x.double()).any() and twin(x.double()).any()


def test_members_compile() -> None:
    model = rewritten(mlp(lambda net, x, z: (z, {"x": x}))).eval()
    x = torch.randn(3, 6)
    asked = members(model, x)
    found = torch.compile(asked, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(found[0], asked(x)[0])


def test_the_outputs_cost_what_the_forward_costs() -> None:
    """A stack of exits is no more work than their sum: FLOPs exactly, time to the noise of it."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
                        nn.Linear(256, 10))  # fmt: skip
    x = torch.randn(256, 64)
    model = cerewrite.convert(
        net, x[:2], scope="network", fixed={"0": "4x112"}, estimator="analytic"
    ).model.eval()
    asked = members(model)
    with FlopCounterMode(display=False) as plain:
        model(x)
    with FlopCounterMode(display=False) as apart:
        asked(x)
    assert plain.get_total_flops() == apart.get_total_flops() > 0
    times: dict[nn.Module, list[float]] = {model: [], asked: []}
    with torch.no_grad():
        for number in range(100):
            for module in (model, asked)[:: 1 if number % 2 else -1]:
                start = time.process_time()
                module(x)
                times[module].append(time.process_time() - start)
    # the least of each, as the machine may be busy; medians are 0.89 and 1.02 in docs/MEMBERS.md
    assert min(times[asked]) < 1.2 * min(times[model])


def test_a_member_exit_says_what_it_is() -> None:
    assert "members=3, parts=(6,), rows=False" in repr(
        MemberLinear(nn.Linear(6, 2), (6,), 3, rows=False)
    )


def test_converted_with_members_the_model_is_the_mean_of_networks_of_their_own_scale() -> None:
    """Exits of scale 1 / m: each member starts as the narrow network it is, f at 1 / sqrt(m)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 256, bias=False), nn.ReLU(), nn.Linear(256, 256, bias=False),
                        nn.ReLU(), nn.Linear(256, 64, bias=False))  # fmt: skip
    x = torch.randn(64, 16)
    spreads = []
    for scale in ("mean", "folded"):
        result = cerewrite.convert(net, x[:2], members=4, exit_scale=scale, estimator="analytic")
        assert result.plan.scope == "network" and result.plan.exit_scale == scale
        model = result.model
        outputs = members(model)(x)
        torch.testing.assert_close(outputs.mean(0), model(x), rtol=1e-5, atol=1e-5)
        spreads.append((outputs.std().item(), model(x).std().item()))
    own = net(x).std().item()
    assert spreads[0] == pytest.approx((own, own / 2), rel=0.15)
    assert spreads[1] == pytest.approx((2 * own, own), rel=0.15)


class Probabilities(nn.Module):
    """A network that ends in a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                                 nn.Linear(64, 3))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(-1)


def test_a_conversion_that_asks_for_members_names_what_they_share() -> None:
    with pytest.raises(RewriteError, match="its forward applies 'softmax'"):
        cerewrite.convert(Probabilities(), torch.ones(2, 6), members=4, estimator="analytic")
    result = cerewrite.convert(
        Probabilities(), torch.ones(2, 6), scope="network", estimator="analytic"
    )
    check = next(c for c in result.verification.checks if c.name == "members")
    assert check.passed and "cannot be asked" in check.detail


def test_verification_holds_the_members_and_catches_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Probabilities().net
    x = torch.randn(3, 6)
    result = cerewrite.convert(net, x, members=4, estimator="analytic")
    check = next(c for c in result.verification.checks if c.name == "members")
    assert check.passed and check.detail.startswith("4 members") and check.value <= 1e-10
    plain = MemberLinear.apart
    monkeypatch.setattr(MemberLinear, "apart", lambda self, x: plain(self, x).roll(1, 0))
    checks = cerewrite.verify(net, result.model, result.plan, x).checks
    assert [c.name for c in checks if not c.passed] == ["members"]


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(plain_cnn, id="plain"),
        pytest.param(
            lambda: StagedNet(Inverted, (32, 64)),
            marks=pytest.mark.thorough,
            id="inverted residuals",
        ),
        pytest.param(lambda: ScaledNet(48, 96), marks=pytest.mark.thorough, id="layer scales"),
    ],
)
def test_whole_networks_are_converted_into_members(build: Callable[[], nn.Module]) -> None:
    """Streams, depthwise convolutions, norms and layer scales, from the trace to the check."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    result = cerewrite.convert(build(), x, members=4, gain="he", min_width=1, estimator="analytic")
    planned, baseline = result.plan.planned, result.plan.baseline
    assert planned.params <= baseline.params and planned.flops <= baseline.flops
    check = next(c for c in result.verification.checks if c.name == "members")
    assert check.passed and check.value is not None and check.value <= 1e-10
    assert members(result.model)(x).shape[0] == 4


class Stem(Probabilities):
    """A norm of the inputs, which the members share."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.norm(x))


def test_a_shared_stem_converts_and_has_to_be_allowed() -> None:
    result = cerewrite.convert(Stem(), torch.randn(2, 6), members=4, estimator="analytic")
    check = next(c for c in result.verification.checks if c.name == "members")
    assert check.passed and check.value is not None and check.value <= 1e-10
    with pytest.raises(RewriteError, match=r"'norm' \(BatchNorm1d\) in front") as caught:
        members(result.model)
    assert "allow_shared=True" in caught.value.advice
    assert members(result.model, allow_shared=True)(torch.randn(3, 6)).shape == (4, 3, 3)


class Extra(Probabilities):
    """Another output in training mode, as networks with auxiliary heads have."""

    def forward(self, x: Tensor) -> object:
        z = self.net(x)
        return (z, z) if self.training else (z,)


def test_outputs_that_only_training_has_are_refused() -> None:
    model = cerewrite.convert(Extra(), torch.ones(2, 6), members=2, estimator="analytic").model
    asked = members(model)
    assert len(asked.eval()(torch.ones(2, 6))) == 1
    with pytest.raises(RewriteError, match="returns more than the 1 tensors"):
        asked.train()(torch.ones(2, 6))
