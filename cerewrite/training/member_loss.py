"""`cerewrite.MemberLoss`: the loss of the members' mean, mixed with the mean of their losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from cerewrite.errors import TrainingError, UsageError
from cerewrite.rewriting.members import mean_output, member_output
from cerewrite.runtime.trees import tensors

Criterion = Callable[..., Tensor]
"""Of a model's output and whatever else: a scalar."""


class MemberLoss(nn.Module):
    """``share * L(mean_j z_j) + (1 - share) * mean_j L(z_j)``, from one forward.

    docs/theory.md, section 14. With share 1 the members are trained as one network: they divide
    the work, and one alone is useless. With share 0 each is trained on its own loss, as in a deep
    ensemble. In between the mean was better calibrated than with either in the first runs; one
    half is the default.

    Args:
        criterion: any loss of a model's output, a module or a function; it gets one member's
            output at a time, with the structure that the model returns.
        share: weight of the mean's own loss, 0 to 1.
        members: how many members to expect; None for as many as come.

    Raises:
        UsageError: if the criterion cannot be called or has no reduction, the share is outside
            0 to 1, or fewer than two members are expected.

    References:
        Jeffares et al., Joint Training of Deep Ensembles Fails Due to Learner Collusion
        (arXiv 2301.11323).

    Example:
        >>> import torch
        >>> loss = MemberLoss(nn.functional.mse_loss, share=0.5)
        >>> outputs, target = torch.tensor([[[1.0]], [[3.0]]]), torch.tensor([[2.0]])
        >>> float(loss(outputs, target))  # the mean is right, each member is off by one
        0.5
    """

    def __init__(
        self, criterion: Criterion, share: float = 0.5, *, members: int | None = None
    ) -> None:
        super().__init__()
        if not callable(criterion):
            raise UsageError(
                f"the criterion is a {type(criterion).__name__}, which cannot be called",
                advice="give a loss: torch.nn.CrossEntropyLoss() or a function",
            )
        if getattr(criterion, "reduction", "mean") == "none":
            raise UsageError(
                f"the criterion {type(criterion).__name__} has no reduction: it gives a loss per "
                "example",
                advice="build it with reduction='mean'",
            )
        if not 0 <= share <= 1:
            raise UsageError(f"share {share}", advice="give a number from 0 to 1")
        if members is not None and members < 2:
            raise UsageError(f"{members} members", advice="give at least 2: one has no ensemble")
        self.criterion = criterion
        self.share = float(share)
        self.members = members

    def forward(self, outputs: Any, *targets: Any, **further: Any) -> Tensor:
        """The mixed loss, a scalar.

        Args:
            outputs: what ``cerewrite.members(model)(...)`` returned: tensors ``[m, batch, ...]``.
            targets: handed on to the criterion after the output.
            further: handed on as keywords.

        Raises:
            TrainingError: if there is no floating-point output, fewer than two members or not
                the expected number, or the criterion returns no scalar.
        """
        count = self._count(outputs)
        loss = None
        if self.share:
            loss = self.share * self._loss(mean_output(outputs), *targets, **further)
        if self.share < 1:
            own = [
                self._loss(member_output(outputs, index), *targets, **further)
                for index in range(count)
            ]
            mean = (1 - self.share) / count * sum(own[1:], own[0])
            loss = mean if loss is None else loss + mean
        assert loss is not None
        return loss

    def extra_repr(self) -> str:
        """The share, for ``repr``."""
        return f"share={self.share}"

    def _loss(self, output: Any, *targets: Any, **further: Any) -> Tensor:
        loss = self.criterion(output, *targets, **further)
        if not isinstance(loss, Tensor) or loss.dim() > 0:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)[:60]
            raise TrainingError(
                f"the criterion returns no scalar: {found}",
                advice="reduce it: criterion(...).mean()",
            )
        return loss

    def _count(self, outputs: Any) -> int:
        """How many members the outputs have."""
        floating = [tensor for tensor in tensors(outputs) if tensor.is_floating_point()]
        if not floating:
            raise TrainingError(
                "the members' outputs hold no floating-point tensor",
                advice="return logits or values, not classes",
            )
        sizes = {tensor.shape[0] if tensor.dim() else 1 for tensor in floating}
        count = sizes.pop()
        if sizes or count < 2 or self.members not in (None, count):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in floating)
            wanted = "several members" if self.members is None else f"{self.members} members"
            raise TrainingError(
                f"outputs of shapes {shapes} are not those of {wanted}, on the first axis of each",
                advice="give what cerewrite.members(model)(inputs) returns",
            )
        return count
