"""The mixed loss: what it is, that it trains members apart, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import cerewrite
from cerewrite.errors import TrainingError, UsageError
from cerewrite.training import MemberLoss


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_it_mixes_the_means_loss_with_the_mean_of_losses(share: float) -> None:
    torch.manual_seed(0)
    outputs = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(4, (5,))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    found = MemberLoss(criterion, share)(outputs, labels)
    own = torch.stack([criterion(outputs[j], labels) for j in range(3)]).mean()
    whole = criterion(outputs.mean(0), labels)
    torch.testing.assert_close(found, share * whole + (1 - share) * own)
    (grad,) = torch.autograd.grad(found, outputs)
    wanted = torch.autograd.grad(share * whole + (1 - share) * own, outputs)[0]
    torch.testing.assert_close(grad, wanted)


def test_convex_losses_of_the_mean_are_no_larger() -> None:
    """Jensen: the gap between the two losses is what the members' diversity is worth."""
    outputs, labels = torch.randn(4, 6, 3), torch.randint(3, (6,))
    losses = [MemberLoss(nn.CrossEntropyLoss(), share)(outputs, labels) for share in (0.0, 1.0)]
    assert losses[1] < losses[0]


@dataclass
class Output:
    logits: Tensor
    extra: tuple[Tensor, dict[str, Tensor]]


def test_structured_outputs_and_keywords_reach_the_criterion() -> None:
    seen = []

    def criterion(output: Output, target: Tensor, *, weight: float) -> Tensor:
        seen.append(output)
        return weight * (output.logits - target).square().mean() + output.extra[1]["b"].sum()

    ids = torch.arange(2).expand(3, 2)
    outputs = Output(torch.ones(3, 2, 1), (ids, {"b": torch.ones(3, 2)}))
    found = MemberLoss(criterion, 0.5)(outputs, torch.zeros(2, 1), weight=2.0)
    assert float(found) == pytest.approx(4.0) and len(seen) == 4
    assert all(type(o) is Output and o.logits.shape == (2, 1) for o in seen)
    assert all(o.extra[0].tolist() == [0, 1] for o in seen)


def test_members_on_their_own_losses_are_models_and_joint_ones_are_not() -> None:
    """Share 1 lets the members divide the work; share 0 makes each a model (2301.11323)."""
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, :2].prod(1) > 0).long() + 2 * (x[:, 2:4].prod(1) > 0).long()
    alone = []
    for share in (0.0, 1.0):
        net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                            nn.Linear(64, 4))  # fmt: skip
        asked = cerewrite.members(
            cerewrite.convert(net, x[:2], members=4, estimator="analytic").model
        )
        loss = MemberLoss(nn.CrossEntropyLoss(), share, members=4)
        optimiser = torch.optim.Adam(asked.parameters(), 1e-2)
        for _ in range(150):
            optimiser.zero_grad()
            loss(asked(x), y).backward()
            optimiser.step()
        with torch.no_grad():
            outputs = asked(x)
        assert (outputs.mean(0).argmax(-1) == y).double().mean() > 0.95
        alone.append((outputs.argmax(-1) == y).double().mean().item())
    assert alone[0] > 0.95 > 0.9 > alone[1]


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(UsageError, match="has no reduction"):
        MemberLoss(nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(UsageError, match="cannot be called"):
        MemberLoss("mse")
    with pytest.raises(UsageError, match=r"share 1\.5"):
        MemberLoss(nn.MSELoss(), 1.5)
    with pytest.raises(UsageError, match="1 members"):
        MemberLoss(nn.MSELoss(), members=1)
    y = torch.zeros(2, 3)
    with pytest.raises(TrainingError, match=r"no scalar: shape \(2, 3\)"):
        MemberLoss(lambda a, b: a - b)(torch.ones(4, 2, 3), y)
    with pytest.raises(TrainingError, match=r"no scalar: 1\.0"):
        MemberLoss(lambda a, b: 1.0)(torch.ones(4, 2, 3), y)
    with pytest.raises(TrainingError, match="no floating-point"):
        MemberLoss(nn.MSELoss())(torch.ones(4, 2, dtype=torch.long), y)
    with pytest.raises(TrainingError, match="not those of several members"):
        MemberLoss(nn.MSELoss())(torch.ones(1, 2, 3), y)
    with pytest.raises(TrainingError, match="not those of 4 members"):
        MemberLoss(nn.MSELoss(), members=4)(torch.ones(2, 3), y)
