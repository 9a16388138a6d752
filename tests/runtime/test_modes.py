from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cerewrite.runtime.alone import muted
from cerewrite.runtime.modes import evaluating, modes_kept, undisturbed


class Restless(nn.Module):
    """Counts its calls in one buffer, replaces another, draws a number."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.still = nn.Dropout().eval()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x + torch.rand(())
        return self.norm(x)


def state(model: nn.Module) -> dict[str, object]:
    flags = {name: module.training for name, module in model.named_modules()}
    own = {name: (id(b), b.tolist()) for name, b in model.named_buffers()}
    return {"flags": flags, "buffers": own, "random": torch.random.get_rng_state().tolist()}


def test_nothing_remains_of_a_run() -> None:
    model, x = Restless(), torch.randn(4, 3)
    before = state(model)
    with undisturbed(model):
        assert not model(x).requires_grad and not model.norm.training
        assert state(model) != before
    assert state(model) == before


def test_nothing_remains_of_a_run_that_fails() -> None:
    model = Restless()
    before = state(model)
    with pytest.raises(RuntimeError), undisturbed(model):
        model(torch.randn(4, 5))
    assert state(model) == before


@pytest.mark.parametrize("learning", [False, True])
def test_norms_on_the_batch(learning: bool) -> None:
    model, x = Restless(), torch.randn(64, 3) + 5
    before = state(model)
    with undisturbed(model, on_batch=[model.norm], learning=learning):
        y = model(x)
        assert model.norm.training and not model.training
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert model.norm.momentum == 0.1
    if learning:
        torch.testing.assert_close(model.norm.running_mean, x.mean(0))
        assert int(model.norm.num_batches_tracked) == 0
    else:
        assert state(model) == before


def test_flags() -> None:
    model, other = Restless(), nn.Linear(1, 1)
    before = state(model)
    with evaluating(model, other):
        assert not any(m.training for m in [*model.modules(), *other.modules()])
    with modes_kept(model):
        model.train()
        assert model.still.training
    assert state(model) == before and other.training


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with muted():
        print("a whole graph")
    assert capfd.readouterr().out == ""
