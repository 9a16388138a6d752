"""Terms for a training loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from cerewrite.errors import UsageError

SAMPLE = 5
"""Examples in each of the two samples, as published."""

BETA = 1.0
"""Added to the second sample's variance where nobody says."""

LEAST_BETA = 1e-3


def variance_constancy(values: Tensor, beta: Tensor | float = BETA, sample: int = SAMPLE) -> Tensor:
    """``(1 - s_1^2 / (s_2^2 + beta))^2`` of every unit, at least 0.

    s_1^2 and s_2^2 are the unbiased variances over the first and the last ``sample`` examples,
    at every position; positions are averaged.

    Args:
        values: ``[batch, units, *positions]``, a layer's outputs before its activation.
        beta: above 0, one number or ``[units]``.
        sample: examples in each of the two, at least 2.

    Returns:
        ``[units]``.

    Raises:
        UsageError: if the batch does not hold two samples.

    References:
        Littwin & Wolf, Regularizing by the Variance of the Activations' Sample-Variances
        (1811.08764).

    Example:
        >>> rows = torch.tensor([[0.0], [2.0], [0.0], [2.0]])
        >>> float(variance_constancy(rows, beta=2.0, sample=2))  # (1 - 2 / (2 + 2))^2
        0.25
    """
    if sample < 2 or len(values) < 2 * sample:
        raise UsageError(
            f"two samples of {sample} examples from a batch of {len(values)}",
            advice="give a larger batch, or smaller samples of at least 2",
        )
    first, last = (part.var(0) for part in (values[:sample], values[-sample:]))
    if isinstance(beta, Tensor) and beta.dim():
        beta = beta.view(-1, *[1] * (values.dim() - 2))
    terms = (1 - first / (last + beta)).square()
    return terms if terms.dim() < 2 else terms.flatten(1).mean(1)


class VarianceConstancy(nn.Module):
    """A loss term that keeps the variances of units constant from sample to sample.

    It stands in for batch norm: ``loss + weight * constancy()`` after each forward pass of the
    model. Hooks note the outputs of every linear and convolution module but the last; `remove`
    takes them off. Give its parameters to the optimiser as well where beta is learnt.

    Args:
        model: the model that is trained.
        sample: examples in each of the two samples; batches hold twice as many or more.
        beta: where the betas of all units start, above 0.
        learnt: whether they are trained.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> constancy = VarianceConstancy(model)
        >>> _ = model(torch.randn(16, 3))
        >>> loss = constancy()
        >>> loss.backward()
        >>> bool(loss > 0), model[0].weight.grad is not None, model[2].weight.grad is None
        (True, True, True)
    """

    def __init__(
        self, model: nn.Module, *, sample: int = SAMPLE, beta: float = BETA, learnt: bool = True
    ) -> None:
        super().__init__()
        if sample < 2 or not beta > 0:
            raise UsageError(
                f"samples of {sample} and beta {beta}", advice="give 2 or more, and beta above 0"
            )
        kinds = (nn.Linear, nn.modules.conv._ConvNd)
        layers = [m for m in model.modules() if isinstance(m, kinds)][:-1]
        if not layers:
            raise UsageError(
                "the model has no hidden linear or convolution module", advice="give a deeper one"
            )
        self.sample = sample
        self.betas = nn.ParameterList(
            nn.Parameter(m.weight.new_full((_units(m),), beta), learnt) for m in layers
        )
        self._seen: list[Tensor | None] = [None] * len(layers)
        self._hooks = [m.register_forward_hook(self._note(i)) for i, m in enumerate(layers)]

    def _note(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            # Channels of a linear layer on sequences are last.
            moved = output.movedim(-1, 1) if isinstance(module, nn.Linear) else output
            # A copy of what is used: an activation in place would overwrite it.
            ends = (moved[: self.sample], moved[self.sample :][-self.sample :])
            self._seen[index] = torch.cat(ends)

        return hook

    def forward(self) -> Tensor:
        """The mean of the term over the units of each layer, summed over layers, of the last pass.

        Raises:
            UsageError: if the model was not run since, or its batch was too small.
        """
        seen = [value for value in self._seen if value is not None]
        if not seen:
            raise UsageError("the model was not run", advice="call the model first")
        pairs = zip(self._seen, self.betas, strict=True)
        terms = [
            variance_constancy(value, beta.clamp_min(LEAST_BETA), self.sample).mean()
            for value, beta in pairs
            if value is not None
        ]
        self._seen = [None] * len(self._seen)
        return torch.stack(terms).sum()

    def remove(self) -> Self:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()
        return self


def _units(layer: nn.Module) -> int:
    """Output channels of a linear or convolution module."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    assert isinstance(layer, nn.modules.conv._ConvNd)
    return layer.out_channels
