from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import RewriteError, UsageError
from cerewrite.ir import EXIT_SCALES
from cerewrite.rewriting import Rewritten, Session, default_passes_with, revert, rewrite
from cerewrite.rewriting.transfer.calibration import divide, outputs
from cerewrite.verifier import check_transfer, output_error, verify
from passes.transfer_weights import TransferWeights
from tests.rewriting.builders import Case, layer, region
from tests.rewriting.cases import CASES, parameters_of, same_state


def calibration(case: Case, count: int = 64, seed: int = 5) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, *case.shape[1:], generator=generator),)


def transfer(case: Case, model: nn.Module, inputs: Any = None, **fields: Any) -> Rewritten:
    plan = replace(case.plan(model), weights="transfer", **fields)
    return rewrite(plan, model, passes=default_passes_with(TransferWeights(inputs)))


def trained(case: Case) -> nn.Module:
    """A model whose norms and heads are not at their initial constants."""
    model = case.model()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or not parameter.any():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            assert parameter.isfinite().all(), name
        model.train()
        for seed in range(20):
            model(*calibration(case, 16, seed))
    return model


@pytest.mark.parametrize("name", CASES)
def test_nearer_to_the_original_than_fresh_weights_and_still_members(name: str) -> None:
    case = CASES[name]
    model = trained(case)
    before, random = parameters_of(model), torch.get_rng_state()
    new = transfer(case, model, calibration(case), exit_scale=EXIT_SCALES[len(name) % 3]).model
    assert torch.equal(torch.get_rng_state(), random)
    assert same_state(parameters_of(model), before)
    assert all(module.training for module in new.modules())
    fresh = rewrite(case.plan(model), model).model
    check = check_transfer(model, new, fresh, calibration(case, seed=6))
    assert check.passed and check.value < 0.9, check.detail
    failures = verify(model, new, case.plan(model), case.inputs()).failures
    assert not failures, failures
    swapped = {split.region for split in case.plan(model).splits}
    assert swapped
    assert same_state(parameters_of(revert(new)), before)


@pytest.mark.parametrize("name", ["resnext", "mlp_batch_norm"])
def test_layers_outside_the_regions_keep_their_bits(name: str) -> None:
    case = CASES[name]
    model = trained(case)
    plan = case.plan(model)
    new = parameters_of(transfer(case, model, calibration(case)).model)
    inside = {item.name for r in plan.regions for item in (*r.layers, *r.modules)}
    for key, value in model.state_dict().items():
        if key.rpartition(".")[0] not in inside:
            assert torch.equal(new[key], value), key


def test_same_seed_same_bytes() -> None:
    case = CASES["cnn"]
    model = trained(case)
    first, second = (transfer(case, model, calibration(case)).model for _ in range(2))
    assert same_state(parameters_of(first), parameters_of(second))


def identity_case(m: int, widths: tuple[int, ...]) -> Case:
    """Three linears with batch norms, its hidden layers made of independent halves."""

    def build() -> nn.Module:
        net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8),
                            nn.ReLU(), nn.Linear(8, 3))  # fmt: skip
        order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
        with torch.no_grad():
            mask = torch.block_diag(torch.ones(4, 4), torch.ones(4, 4))
            net[3].weight.mul_(mask[order][:, order])
            net[1].running_mean.uniform_(-1, 1)
        return net.eval()

    def regions(model: nn.Module):  # noqa: ANN202
        layers = [layer(model, "0", -1, 0), layer(model, "3", 0, 1), layer(model, "5", 1, -1)]
        return (region(model, layers, [("1", "batch_norm", 0)]),)

    return Case("halves", build, (5, 6), regions, ((m, widths),))


def test_a_model_of_two_halves_is_kept_exactly() -> None:
    """Without calibration: members find the halves, and the function stays the same."""
    case = identity_case(2, (4, 4))
    model = case.model()
    result = transfer(case, model)
    assert "100% of the interiors' energy" in result.passes[-1].details
    assert output_error(model, result.model, calibration(case)) < 1e-6


def test_copies_share_the_weights_of_their_readers() -> None:
    """Members that hold every channel: their sum is the original, but for noise."""
    case = identity_case(3, (8, 8))
    model = case.model()
    full = transfer(case, model).model
    assert output_error(model, full, calibration(case)) < 0.01
    assert len(full[0].weight.unique(dim=0)) == 24
    wide = identity_case(2, (16, 12))
    copies = transfer(wide, model).model
    assert output_error(model, copies, calibration(case)) < 0.02
    rows = copies[3].weight[0].T
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_planted_fault_foreign_channels_fail_the_check() -> None:
    """Weights that are no better than fresh ones are not passed as a warm start."""
    case = CASES["mlp_layer_norm"]
    model = trained(case)
    fresh = rewrite(case.plan(model), model).model
    check = check_transfer(model, fresh, fresh, calibration(case))
    assert not check.passed


def test_batch_norms_take_the_statistics_of_the_batch() -> None:
    case = CASES["mlp_batch_norm"]
    model = trained(case)
    inputs = calibration(case, 256)
    new = transfer(case, model, inputs).model
    assert new[1].momentum == model[1].momentum
    assert torch.equal(new[1].num_batches_tracked, model[1].num_batches_tracked)
    read = new[0](*inputs)
    assert torch.allclose(new[1].running_mean, read.mean(0), atol=1e-5)
    assert torch.allclose(new[1].running_var, read.var(0), rtol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ((torch.zeros(8, 4),), r"does not take the calibration inputs \[8, 4\]"),
        ((torch.zeros(1, 5),), "two examples or more"),
        ((torch.zeros(0, 5),), "two examples or more"),
        ((torch.zeros(()),), "two examples or more"),
        ((torch.zeros(4, 5), torch.zeros(3, 5)), "two examples or more"),
        ((torch.full((4, 5), torch.nan),), "not finite"),
        ({"x": torch.zeros(4, 5)}, "does not take"),
        ((), "no tensor"),
    ],
)
def test_unfit_calibration_inputs_are_refused(inputs: Any, reason: str) -> None:
    case = CASES["mlp_batch_norm"]
    model = trained(case)
    before = parameters_of(model)
    with pytest.raises(RewriteError, match=reason) as error:
        transfer(case, model, inputs)
    assert error.value.advice
    assert same_state(parameters_of(model), before)


def test_models_without_values_are_refused() -> None:
    case = CASES["tokens"]
    plan = replace(case.plan(), weights="transfer")
    with pytest.raises(RewriteError, match="meta device"):
        rewrite(plan, case.model().to("meta"))
    broken = trained(CASES["mlp_batch_norm"])
    with torch.no_grad():
        broken[3].bias.fill_(torch.inf)
    with pytest.raises(RewriteError, match="not finite"):
        transfer(CASES["mlp_batch_norm"], broken, calibration(CASES["mlp_batch_norm"]))


@pytest.mark.thorough
def test_convert_measures_the_warm_start_on_inputs_it_has_not_fitted(tmp_path: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(24, 24), nn.Tanh())))
    x = torch.randn(200, 24)
    np.save(tmp_path / "x.npy", x.numpy())
    result = cerewrite.convert(
        net, x[:2], weights="transfer", calibration=tmp_path / "x.npy", estimator="analytic"
    )
    check = result.verification.checks[-1]
    assert check.name == "warm start" and check.passed
    assert result.plan.weights == "transfer"
    fitted, unseen = divide((x,), 150)
    same = cerewrite.apply(result.plan, net, calibration=fitted)
    assert same_state(parameters_of(same), parameters_of(result.model))
    assert check.value == pytest.approx(output_error(net, same, unseen))
    assert outputs(net, unseen).shape == (50, 24)
    with pytest.raises(UsageError, match="draws its weights anew"):
        cerewrite.convert(net, x[:2], calibration=x, estimator="analytic")
    bare = cerewrite.convert(net, x[:2], weights="transfer", estimator="analytic")
    assert bare.verification.checks[-1].value > check.value
    (tmp_path / "y.npy").write_bytes(b"nothing")
    with pytest.raises(cerewrite.LoadError, match="no inputs can be read"):
        cerewrite.convert(
            net, x[:2], weights="transfer", calibration=tmp_path / "y.npy", estimator="analytic"
        )
    with pytest.raises(UsageError, match="unknown source of weights"):
        cerewrite.plan(result.analysis, weights="magic")


def test_layers_of_unknown_operators_are_refused() -> None:
    case = CASES["tokens"]
    model = trained(case)
    session = Session(model, replace(case.plan(model), weights="transfer"))
    change = session.changes[0]
    layers = (replace(change.region.layers[0], op="batch_norm"),)
    session.changes = (replace(change, region=replace(change.region, layers=layers)),)
    with pytest.raises(RewriteError, match="cannot carry its weights"):
        TransferWeights().requires(session)
