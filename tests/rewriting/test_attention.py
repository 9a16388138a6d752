"""Transformers as ensembles: heads divided among members, whatever form attention is written in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cerewrite
from cerewrite.errors import RewriteError, UsageError
from cerewrite.frontend.tracing import trace
from cerewrite.ir import Plan, TracedModel, WidthClass
from cerewrite.ops.called_norm import CalledNorm, CalledRMSNorm
from tests.attention_models import FORMS, IDS, Encoder, Norm


def width(traced: TracedModel, name: str) -> WidthClass:
    return next(found for found in traced.widths if found.name == name)


def written_by(traced: TracedModel, layer: str) -> WidthClass:
    return next(found for found in traced.widths if layer in found.writers)


def planned(net: nn.Module, inputs: Any, members: int = 2) -> Plan:
    """Members of about the original's widths over their number."""
    found = cerewrite.analyze(
        net, inputs, scope="network", estimator="analytic", memory_batch=None, gain="he"
    )
    assert found.regions, found.rejections
    fixed = {}
    for region in (estimate.region for estimate in found.regions):
        sizes = zip(region.sizes, region.steps, strict=True)
        fixed[region.name] = members, tuple(s * max(n // members // s, 1) for n, s in sizes)
    return cerewrite.plan(found, fixed=fixed, allow="all")


class Weightless(nn.Module):
    """Olmo's: a norm without weights, in single precision."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalized_shape = (width,)

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x.to(torch.float32), self.normalized_shape).to(x.dtype)


@pytest.mark.parametrize("how", FORMS)
def test_heads_are_followed_through_every_form(how: str) -> None:
    traced = trace(Encoder(how), IDS)
    heads = written_by(traced, "blocks.0.attn." + ("qkv" if "qkv" in dict(
        Encoder(how).blocks[0].attn.named_children()) else "q"))  # fmt: skip
    assert not heads.pins and not width(traced, "tokens").pins
    assert heads.step == (1 if how in ("gated heads", "outer heads") else 4)  # of whole heads
    by_name = {layer.name: layer for layer in traced.layers}
    if how in ("grouped", "repeated"):  # two query heads to a key head
        assert by_name["blocks.0.attn.q"].writes == (2,) and heads.size == 8
        assert by_name["blocks.0.attn.proj"].times == 2
    elif how == "interleaved":
        assert by_name["blocks.0.attn.qkv"].writes == (3,)
    elif how == "outer heads":  # channels of a head lie apart, heads side by side in each
        assert by_name["blocks.0.attn.proj"].sources == (heads.name,) * 4
    elif how == "gated heads":
        assert by_name["blocks.0.attn.q"].writes == (4,) and heads.size == 4
        gates = {module.name: module.params for module in heads.modules}
        assert gates.items() >= {("blocks.0.attn.scale", 1), ("blocks.0.attn.gate", 1)}
    elif "qkv" in dict(Encoder(how).blocks[0].attn.named_children()):
        assert by_name["blocks.0.attn.qkv"].writes == (1, 1, 1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("how", "gate", "norm", "members"),
    [(how, "plain", nn.LayerNorm, 2) for how in FORMS]
    + [("fused", gate, Norm, 4) for gate in ("gated", "chunked", "turned")]
    + [("stacked", "chunked", nn.RMSNorm, 3)]
    + [("fused", "gated", norm, 2) for norm in (CalledNorm, CalledRMSNorm, Weightless)],
)
def test_a_rewritten_encoder_is_its_members(
    how: str, gate: str, norm: type[nn.Module], members: int
) -> None:
    torch.manual_seed(0)
    net = Encoder(how, gate, norm, heads=8 if members > 3 else 4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plan = planned(net, IDS, members)
    new = cerewrite.apply(plan, net)
    verification = cerewrite.verify(net, new, plan, IDS)
    assert verification.passed, verification.checks
    checks = {check.name: check for check in verification.checks}
    assert checks["membership"].value is not None and checks["membership"].value < 1e-10
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    new(IDS).sum().backward()
    assert all(p.grad is not None for p in new.parameters())
    cerewrite.revert(new)
    assert all(torch.equal(before[name], value) for name, value in new.state_dict().items())
    assert torch.equal(new(IDS), net(IDS))


def test_numbers_are_set_on_the_copy_and_taken_back() -> None:
    torch.manual_seed(0)
    net = Encoder("cut")
    plan = planned(net, IDS, 3)
    new = cerewrite.apply(plan, net)
    split = plan.splits[0]
    own, copied = net.blocks[0].attn, new.blocks[0].attn
    index = plan.regions[0].classes.index("blocks.0.attn.qkv")
    assert (own.num_heads, own.width, type(own.num_heads)) == (4, 16, int)
    assert copied.width == 3 * split.widths[index] and copied.head_dim == own.head_dim
    assert copied.num_heads * copied.head_dim == copied.width
    cerewrite.revert(new)
    assert (copied.num_heads, copied.width) == (4, 16)


@pytest.mark.thorough
def test_numbers_come_back_with_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Encoder("cut")
    plan = planned(net, IDS, 3)
    new = cerewrite.apply(plan, net).eval()
    cerewrite.save(tmp_path / "out", new, plan)
    loaded = cerewrite.load(tmp_path / "out", Encoder("cut")).eval()
    assert loaded.blocks[0].attn.num_heads == new.blocks[0].attn.num_heads
    assert torch.equal(loaded(IDS), new(IDS))


class Config:
    """What several modules read their sizes from."""

    def __init__(self) -> None:
        self.heads, self.head_dim = 4, 4


class Configured(nn.Module):
    """Two attentions that name their heads by fields of one configuration."""

    def __init__(self, how: str = "view") -> None:
        super().__init__()
        self.config, self.how = Config(), how
        self.tokens = nn.Embedding(11, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 48) for _ in range(2))
        self.outs = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for layer, out in zip(self.layers, self.outs, strict=True):
            heads, size = self.config.heads, self.config.head_dim
            if self.how == "computed":
                heads = int(str(heads))  # a number of Python's own
            if self.how == "scaled":
                x = x * heads**-0.5
            q, k, v = (y.view(*ids.shape, heads, size) for y in layer(x).chunk(3, -1))
            y = nn.functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
            x = x + out(y.transpose(1, 2).flatten(2))
        return self.head(x.mean(1))


@pytest.mark.thorough
def test_fields_of_a_shared_configuration_are_set_once() -> None:
    torch.manual_seed(0)
    net = Configured()
    plan = planned(net, IDS)
    new = cerewrite.apply(plan, net)
    assert cerewrite.verify(net, new, plan, IDS).passed
    numbers = [module.name for region in plan.regions for module in region.modules
               if module.op == "number"]  # fmt: skip
    assert numbers == ["config.heads"] and net.config.heads == 4


@pytest.mark.parametrize(
    ("view", "code"),
    [
        (lambda y, attn: y.view(2, 7, 4, 4), "fixed-view"),  # numbers of the forward's own
        (lambda y, attn: y.view(2, 7, 4, attn.head_dim), "not-member-wise"),
        (lambda y, attn: y.view(14, attn.num_heads, -1)[:, [1, 0, 3, 2]], "not-member-wise"),
    ],
)
def test_heads_that_cannot_be_told_are_refused_by_name(view: Any, code: str) -> None:
    class Odd(Encoder):
        def forward(self, ids: Tensor) -> Tensor:
            attn = self.blocks[0].attn
            x = self.tokens(ids)
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
            y = view(attn.q(x), attn).reshape(2, 7, -1, 4).transpose(1, 2)
            y = nn.functional.scaled_dot_product_attention(y, y, y)
            return self.head(y.transpose(1, 2).flatten(2).mean(1))

    found = written_by(trace(Odd("fused"), IDS), "blocks.0.attn.q")
    assert code in [pin.code for pin in found.pins]
    assert all(pin.reason and pin.advice and pin.where for pin in found.pins)


@pytest.mark.parametrize("how", ["computed", "scaled"])
def test_a_field_that_python_computes_with_is_refused(how: str) -> None:
    found = trace(Configured(how), IDS)
    pins = [pin for name in ("layers.0", "layers.1") for pin in written_by(found, name).pins]
    assert {pin.code for pin in pins} == {"fixed-view"}
    assert "attribute" in pins[0].advice


def test_one_key_head_cannot_be_shared_by_members() -> None:
    net = Encoder("grouped", heads=2)
    found = cerewrite.analyze(net, IDS, scope="network", estimator="analytic", memory_batch=None)
    refused = [r for r in found.rejections if r.code == "one-head"]
    assert refused and all("key" in rejection.advice for rejection in refused)


def test_widths_that_no_head_divides_are_refused() -> None:
    net = Encoder("fused")
    found = cerewrite.analyze(net, IDS, scope="network", estimator="analytic", memory_batch=None)
    region = found.regions[0].region
    widths = [n // 2 for n in region.sizes]
    widths[region.classes.index("blocks.0.attn.q")] = 6
    with pytest.raises(UsageError) as caught:
        cerewrite.plan(found, fixed={region.name: (2, tuple(widths))}, allow="all")
    assert "width 6 of 'blocks.0.attn.q'" in caught.value.message
    assert "multiple of 4" in caught.value.advice


def test_planned_members_own_whole_heads() -> None:
    net = Encoder("fused", heads=8)
    found = cerewrite.analyze(net, IDS, scope="network", estimator="analytic", memory_batch=None)
    plan = cerewrite.plan(found, budget="params", allow="all", min_gain=0.0)
    (region,) = plan.regions
    at = region.classes.index("blocks.0.attn.q")
    assert region.steps[at] == 4
    assert all(split.widths[at] % 4 == 0 for split in plan.splits)


class Causal(nn.Module):
    """A language model whose read-out is its table of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 16)
        self.blocks = Encoder("fused").blocks
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.blocks(self.tokens(ids)))


def test_tied_read_outs_are_refused_or_untied_and_counted() -> None:
    torch.manual_seed(0)
    net = Causal()
    options = {"scope": "network", "estimator": "analytic", "memory_batch": None}
    found = cerewrite.analyze(net, IDS, **options)
    assert "tied" in {rejection.code for rejection in found.rejections}
    untied = cerewrite.analyze(net, IDS, untie=True, **options)
    assert untied.untied == ("head.weight",) and net.head.weight is net.tokens.weight
    assert untied.params == found.params + net.head.weight.numel()
    (region,) = (estimate.region for estimate in untied.regions)
    widths = tuple(n // 2 for n in region.sizes)
    plan = cerewrite.plan(untied, fixed={region.name: (2, widths)}, allow="all")
    new = cerewrite.apply(plan, net)
    assert plan.untied == ("head.weight",) and cerewrite.verify(net, new, plan, IDS).passed
    assert new.head.weight is not new.tokens.weight
    with pytest.raises(cerewrite.CerewriteError, match="unties"):
        cerewrite.apply(plan, net, inplace=True)


def test_stock_attention_is_opened() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
    net = nn.Sequential(nn.Linear(5, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3))
    x = torch.randn(2, 6, 5)
    plan = planned(net, (x,))
    new = cerewrite.apply(plan, net)
    assert {"1.layers.0.self_attn.q_proj", "1.layers.1.self_attn.out_proj"} <= {
        layer.name for region in plan.regions for layer in region.layers
    }
    verification = cerewrite.verify(net, new, plan, (x,))
    assert verification.passed, verification.checks
    assert isinstance(net[1].layers[0].self_attn, nn.MultiheadAttention)


@pytest.mark.parametrize("how", ["repeated", "stacked", "interleaved", "chunked"])
def test_layers_that_write_a_class_several_times_are_gated(how: str) -> None:
    torch.manual_seed(0)
    options = {"scope": "network", "memory_batch": None, "draws": 2}
    found = cerewrite.analyze(Encoder(how), IDS, estimator="jackknife", **options)
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["blocks.0.attn.qkv" if how != "repeated" else "blocks.0.attn.v"].kappa > 0


@pytest.mark.parametrize("how", ["fused", "separate"])
def test_a_warm_start_of_heads_is_refused_before_anything_is_changed(how: str) -> None:
    net = Encoder(how)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plan = dataclasses.replace(planned(net, IDS), weights="transfer")
    with pytest.raises(RewriteError, match="writes heads") as met:
        cerewrite.apply(plan, net)
    assert "reinitialise" in met.value.advice
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
