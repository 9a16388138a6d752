from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cerewrite.errors import AnalysisError
from cerewrite.estimators import ESTIMATORS, Assumption, Corrections
from cerewrite.estimators.draws import log_variance, needed_draws, relative_variance
from cerewrite.estimators.exact_relu import exact_relu_nu
from cerewrite.estimators.monte_carlo import subject_of
from cerewrite.frontend.tracing import trace
from tests.models import ResidualNet, chain, plain_cnn


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def unit(*shape: int) -> Tensor:
    """Inputs of mean square 1."""
    return torch.ones(*shape)


def measured(model: nn.Module, x: Any, **options: Any) -> Corrections:
    return ESTIMATORS["monte-carlo"].estimate(trace(model, x), model, x, Assumption(**options))


@pytest.mark.thorough
def test_relu_chain_within_its_error() -> None:
    torch.manual_seed(0)
    nu = measured(chain([48, 48]), unit(2, 7), gain=2.0, draws=6000).nu
    assert nu is not None and nu.stderr is not None and nu.samples == 6000
    exact = exact_relu_nu([48, 48])
    assert abs(nu.value - exact) < 4 * nu.stderr < 0.1 * exact


def test_a_planted_fault_is_caught() -> None:
    # 1.05 on nu itself takes more draws than a test may; the mean kernel shows it sooner
    model, x = chain([48, 48]), unit(2, 7)
    subject = subject_of(trace(model, x), model, x, Assumption(gain=2.0))
    kernels = np.array([subject.kernel(index) for index in range(1500)])
    stderr = kernels.std(ddof=1) / math.sqrt(len(kernels))
    exact = 3 * 2.0  # mean square 1 at the input, times 2 / 2 per ReLU layer, 2 at the read-out
    assert abs(kernels.mean() - exact) < 4 * stderr < 0.05 * exact
    assert abs(1.05 * kernels.mean() - exact) > 4 * stderr


def test_standard_parametrisation_weighs_biases() -> None:
    model = chain([6], bias=True, inputs=3)
    x = torch.randn(1, 3)
    subject = subject_of(trace(model, x), model, x, Assumption(parametrization="standard"))
    value = subject.kernel(0)
    f = subject.model(x)[0, 0] * subject.readout(torch.ones(1, 1))
    expected = sum(g.pow(2).sum() for g in torch.autograd.grad(f, list(subject.model.parameters())))
    assert value == pytest.approx(float(expected), rel=1e-5)


def test_ntk_parametrisation_by_hand() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(4, 3)
    subject = subject_of(trace(model, x), model, x, Assumption(gain=1.5, readout=":1"))
    value = subject.kernel(3)
    own = subject.model
    f = own(x)[0, 1]
    first, second = torch.autograd.grad(f, [own[0].weight, own[2].weight])
    expected = 1.5 / 3 * first.pow(2).sum() + 1.5 / 5 * second.pow(2).sum()
    assert value == pytest.approx(float(expected), rel=1e-5)
    assert bool((own[0].bias == 0).all())


def test_model_is_left_alone() -> None:
    model = plain_cnn().train()
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    measured(model, torch.randn(4, 3, 9, 9), draws=8)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert flags == [m.training for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


def test_draws_do_not_depend_on_workers_or_order() -> None:
    model, x = chain([8, 8]), unit(2, 7)
    alone = measured(model, x, draws=30, seed=3)
    with ThreadPoolExecutor(3) as threads:
        assert measured(model, x, draws=30, seed=3, executor=threads).nu == alone.nu
    assert measured(model, x, draws=30, seed=4).nu != alone.nu
    subject = subject_of(trace(model, x), model, x, Assumption(seed=3))
    assert subject.kernel(5) == [subject.kernel(i) for i in (1, 5)][1]


@pytest.mark.thorough
def test_processes_give_the_same_draws() -> None:
    model, x = chain([8, 8]), unit(2, 7)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        parallel = measured(model, x, draws=24, executor=processes)
    assert parallel.nu == measured(model, x, draws=24).nu


def test_precision_stops_early_and_progress_is_told() -> None:
    told: list[tuple[int, int, float]] = []
    found = measured(
        chain([64]), unit(2, 7), draws=4000, precision=0.2, progress=lambda *at: told.append(at)
    )
    assert found.nu is not None and found.nu.stderr is not None
    assert found.nu.samples < 4000
    assert found.nu.stderr <= 0.2 * found.nu.value
    assert told[-1] == (found.nu.samples, 4000, found.nu.value)


def test_too_few_draws_for_the_tail_warn() -> None:
    assert any(
        "WARNING" in note for note in measured(chain([8] * 6), unit(2, 7), draws=64).assumptions
    )
    assert not any(
        "WARNING" in note for note in measured(chain([64]), unit(2, 7), draws=256).assumptions
    )


def test_log_variance_of_a_heavy_tail() -> None:
    sample = np.exp(np.random.default_rng(1).standard_normal(60_000))
    log = log_variance(sample)
    assert abs(log.value - 1) < 4 * log.stderr < 0.1
    assert abs(1.05 * log.value - 1) > 4 * log.stderr
    nu = relative_variance(np.exp(0.2 * np.random.default_rng(2).standard_normal(60_000)))
    assert abs(nu.value - math.expm1(0.04)) < 4 * nu.stderr < 0.06 * nu.value
    assert needed_draws(2.0, 0.1) > 100 * needed_draws(0.1, 0.1)


def test_users_initialiser_is_used() -> None:
    def ones(model: nn.Module, generator: torch.Generator) -> None:
        for parameter in model.parameters():
            parameter.fill_(1.0 + 0.1 * float(torch.rand((), generator=generator)))

    model, x = chain([4]), unit(1, 7)
    assumption = Assumption(redraw=ones)
    subject = subject_of(trace(model, x), model, x, assumption)
    subject.kernel(0)
    assert float(subject.model[0].weight.detach().min()) >= 1.0


def test_batch_norms_see_the_batch_and_others_one_example() -> None:
    net, x = ResidualNet(), torch.randn(4, 3, 6, 6)
    traced = trace(net, x)
    assert len(subject_of(traced, net, x, Assumption()).args[0]) == 4
    assert len(subject_of(traced, net, x, Assumption(norms="eval")).args[0]) == 1
    with pytest.raises(AnalysisError, match="values per channel"):
        single = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        measured(single, torch.randn(1, 3), draws=8)


class Outputs(nn.Module):
    """A model with two named outputs, one of them integers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.fc = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        logits = self.fc(self.table(tokens))
        return {"tokens": tokens, "logits": logits}


def test_named_readouts_and_integer_inputs() -> None:
    model, tokens = Outputs(), torch.randint(0, 11, (2, 5))
    for readout in ("", "logits", "logits:2", ":0"):
        assert measured(model, tokens, draws=8, readout=readout).nu is not None
    for readout in ("tokens", "scores", ":9", "logits:x"):
        with pytest.raises(AnalysisError) as caught:
            measured(model, tokens, draws=8, readout=readout)
        assert caught.value.advice


def test_bad_requests() -> None:
    model, x = chain([4]), unit(2, 7)
    with pytest.raises(AnalysisError, match="too few"):
        measured(model, x, draws=4)
    with pytest.raises(AnalysisError, match=r"first seen behind"):
        measured(model, torch.full((2, 7), math.nan), draws=8)
    with pytest.raises(AnalysisError, match="raises on its inputs"):
        traced = trace(model, x)
        ESTIMATORS["monte-carlo"].estimate(traced, model, torch.ones(2, 7).long(), Assumption())
    with torch.device("meta"):
        hollow = chain([4])
    with pytest.raises(AnalysisError, match="meta"):
        measured(hollow, torch.ones(2, 7, device="meta"))
    with pytest.raises(AnalysisError, match="no parameter"):
        ESTIMATORS["monte-carlo"].estimate(traced, nn.ReLU(), x, Assumption())
    zero = chain([4])
    nn.init.zeros_(zero[0].weight)
    with pytest.raises(AnalysisError, match="zero in 8 of 8"):
        measured(zero, x, draws=8)


def test_a_layer_without_gradient_is_refused_by_name() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.off, self.on = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.on(x) + self.off(x).detach()

    found = measured(Detached(), torch.randn(2, 3), draws=8).layers
    notes = {layer.layer: layer.note for layer in found}
    assert "never gets a gradient" in notes["off"] and "gradient" not in notes["on"]
