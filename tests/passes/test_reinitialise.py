from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from cerewrite.ops import sampled_of
from cerewrite.rewriting import rewrite
from cerewrite.rewriting.drawing import layer_generator
from tests.rewriting.builders import Case, layer, region
from tests.rewriting.cases import CASES, Bottleneck, _cnn_regions

SAMPLED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def wide_mlp(bias: float = 0.0) -> Case:
    def build() -> nn.Module:
        model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(4)))
        for scale, module in enumerate(model, 1):
            nn.init.normal_(module.weight, std=scale / 16)
            nn.init.constant_(module.bias, bias)
        return model

    def regions(model: nn.Module):  # noqa: ANN202
        names = "0123"
        layers = [layer(model, n, i - 1, i if i < 3 else -1) for i, n in enumerate(names)]
        return (region(model, layers),)

    return Case("wide", build, (2, 256), regions, ((4, (96, 128, 96)),))


def test_every_layer_keeps_its_own_gain() -> None:
    model = wide_mlp().model()
    new = rewrite(wide_mlp().plan(model), model).model
    for old, drawn in zip(model, new, strict=True):
        weight = drawn.weight.detach()
        gain = sampled_of(drawn).fan_in(drawn) * weight.square().mean().item()
        original = old.weight.shape[1] * old.weight.square().mean().item()
        assert gain == pytest.approx(original, rel=0.03)
        assert weight.mean().abs() < 4 * weight.std() / weight.numel() ** 0.5


def test_forward_and_backward_moments_equal_the_originals() -> None:
    """Averaged over draws, the ensemble's second moments are the original's (within 4 %)."""
    moments = torch.zeros(2, 2)
    for seed in range(24):
        model = wide_mlp().model(seed)
        new = rewrite(wide_mlp().plan(model, seed), model).model
        for row, net in enumerate((model, new)):
            x = torch.randn(16, 256, requires_grad=True)
            out = net(x)
            (out * torch.randn(out.shape)).sum().backward()
            assert x.grad is not None
            moments[row] += torch.stack([out.square().mean(), x.grad.square().mean()]).detach()
    ratio = moments[1] / moments[0]
    assert ((ratio - 1).abs() < 0.04).all(), ratio


def test_constant_biases_keep_their_constant_others_their_moments() -> None:
    model = wide_mlp(bias=0.25).model()
    nn.init.uniform_(model[1].bias, 1, 3)
    new = rewrite(wide_mlp().plan(model), model).model
    assert (new[0].bias == 0.25).all() and (new[3].bias == 0.25).all()
    assert new[1].bias.mean().item() == pytest.approx(2, abs=0.15)
    assert new[1].bias.std().item() == pytest.approx(3**-0.5, rel=0.15)


def test_zero_weights_stay_zero() -> None:
    case = CASES["tokens"]
    model = case.model()
    nn.init.zeros_(model[4].weight)
    assert not rewrite(case.plan(model), model).model[4].weight.any()


def test_depthwise_layers_are_drawn_with_their_gain() -> None:
    case = replace(CASES["cnn"], regions=_cnn_regions, splits=((8, (4, 40, 3)),))
    model = case.model()
    depthwise = rewrite(case.plan(model), model).model[6]
    assert depthwise.weight.shape == (320, 1, 3, 3)
    expected = model[6].weight.square().mean().item()
    assert depthwise.weight.square().mean().item() == pytest.approx(expected, rel=0.1)


def test_a_layers_draw_does_not_depend_on_the_other_regions() -> None:
    case = CASES["resnet"]
    model = case.model()
    plan = case.plan(model)
    both = rewrite(plan, model).model
    second = rewrite(replace(plan, splits=plan.splits[1:]), model).model
    assert torch.equal(both.named["last"].conv2.weight, second.named["last"].conv2.weight)
    assert torch.equal(second.blocks[0].conv2.weight, model.blocks[0].conv2.weight)
    assert isinstance(second.blocks[0], Bottleneck)


def test_generators_differ_by_seed_and_name() -> None:
    draws = {
        torch.rand(1, generator=layer_generator(seed, name)).item()
        for seed in (0, 1)
        for name in ("a", "b")
    }
    assert len(draws) == 4
    first, second = (torch.rand(3, generator=layer_generator(7, "x")) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    case = CASES["cnn"]
    model = case.model().to(dtype)
    new = rewrite(case.plan(), model).model
    for module in new.modules():
        if isinstance(module, SAMPLED):
            assert module.weight.dtype == dtype and module.weight.isfinite().all()
