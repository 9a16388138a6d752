"""The original stays as it is: buffers, hooks, shared memory, and copies that are none."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm

import cerewrite
from cerewrite.errors import AnalysisError, RewriteError
from cerewrite.runtime.copies import deep_copy, overlaps
from tests.models import chain

X = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return chain([32, 32, 32, 32], inputs=16, outputs=4)


@pytest.mark.parametrize("norm", [spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("verb", ["analyze", "convert", "jackknife", "export"])
def test_spectral_norms_buffers_stay(tmp_path: Any, norm: Any, verb: str) -> None:
    """Reading such a weight in training mode turns its vectors."""
    model = net()
    norm(model[0])
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if verb == "convert":
        result = cerewrite.convert(model, X, gain="he", draws=16)
        assert result.plan.splits and result.verification.passed
    elif verb == "export":
        cerewrite.export_onnx(model, tmp_path / "m.onnx", X)
    elif verb == "jackknife":
        drawn = norm is parametrizations.spectral_norm  # the other kind hides what it computes
        refused = pytest.raises(AnalysisError, match="nothing says how it is initialised")
        with nullcontext() if drawn else refused:
            cerewrite.analyze(model, X, gain="he", estimator="jackknife", draws=4)
    else:
        cerewrite.analyze(model, X, gain="he", draws=16)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Itself(nn.Linear):
    """Cannot be copied, and does not say so."""

    def __deepcopy__(self, memo: Any) -> nn.Module:
        return self


class Sharing(nn.Module):
    """Its copies have its own weight."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def __deepcopy__(self, memo: Any) -> nn.Module:
        new = Sharing(nn.Linear(4, 4))
        new.layer.weight = self.layer.weight
        return new

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize("part", [Itself(4, 4), Sharing(nn.Linear(4, 4))])
def test_a_copy_that_is_none_is_refused(part: nn.Module) -> None:
    model = nn.Sequential(*net(), part)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(RewriteError, match=r"'8.*mend its __deepcopy__|__deepcopy__"):
        cerewrite.convert(model, X, gain="he", draws=16)
    assert [type(module) for module in model.modules()] == kinds
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def hook(model: nn.Sequential, how: str) -> None:
    layer = model[4]
    if how == "gradient":
        layer.weight.register_hook(lambda gradient: gradient)
    elif how == "accumulated":
        layer.weight.register_post_accumulate_grad_hook(lambda parameter: None)
    elif how == "backward":
        layer.register_full_backward_pre_hook(lambda module, gradient: None)
    else:
        layer.register_state_dict_pre_hook(lambda *arguments: None)


@pytest.mark.parametrize("how", ["gradient", "accumulated", "backward", "state"])
def test_every_kind_of_hook_is_refused(how: str) -> None:
    model = net()
    hook(model, how)
    report = cerewrite.analyze(model, X, gain="he", draws=16)
    assert ("4", "hooked") in {(item.where, item.code) for item in report.rejections}
    result = cerewrite.convert(model, X, gain="he", draws=16) if report.regions else None
    if result is not None:
        assert all("4" not in split.region for split in result.plan.splits)


def test_hooks_of_parameters_that_stay_are_on_the_copy() -> None:
    model = net()
    seen: list[str] = []
    model[0].weight.register_hook(lambda gradient: seen.append("gradient"))
    model[0].weight.register_post_accumulate_grad_hook(lambda parameter: seen.append("after"))
    deep_copy(model)(X).sum().backward()
    assert seen == []
    deep_copy(model, hooks=True)(X).sum().backward()
    assert seen == ["gradient", "after"]


def test_layers_over_the_same_memory_stay_tied() -> None:
    model, held = net(), torch.randn(2 * 32 * 32)
    model[2].weight = nn.Parameter(held[: 32 * 32].view(32, 32))
    model[4].weight = nn.Parameter(held[16 * 32 : 48 * 32].view(32, 32))
    report = cerewrite.analyze(model, X, gain="he", draws=16)
    refused = {item.where: item.code for item in report.rejections}
    assert refused.get("2") == refused.get("4") == "tied"

    twin = deep_copy(model)
    with torch.no_grad():
        twin[2].weight[16:] = 7
    assert bool((twin[4].weight[:16] == 7).all()) and not bool((held == 7).any())


def test_slices_of_one_storage_that_do_not_overlap_are_no_ties() -> None:
    model, held = net(), torch.randn(2, 32, 32)
    model[2].weight, model[4].weight = nn.Parameter(held[0]), nn.Parameter(held[1])
    assert overlaps(model) == []
    assert cerewrite.convert(model, X, gain="he", draws=16).plan.splits
