"""`cerewrite.diagnose`: what theory says about a network's trainability."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cerewrite.api.stages import as_inputs
from cerewrite.ir.diagnosed import DRAWS, Diagnosis
from cerewrite.runtime.alone import alone

if TYPE_CHECKING:
    from torch import nn

    from cerewrite.diagnostics.material import Loss


def diagnose(
    model: nn.Module,
    inputs: object,
    targets: Any = None,
    *,
    loss: Loss | None = None,
    data: str = "given",
    draws: int = DRAWS,
    seed: int = 0,
    only: Iterable[str] = (),
) -> Diagnosis:
    """Every registered diagnostic of trainability, side by side, with what each is worth.

    The model stays as it is: a private copy is looked at, dropout off, batch norms on the batch.

    Args:
        model: any module that can be traced.
        inputs: a batch: a tensor, a tuple of positional inputs or a dict, batch first.
        targets: classes ``[batch]`` or values of the outputs' shape; anything with a ``loss``.
        loss: ``loss(outputs, targets)`` -> scalar, the mean over the examples; cross-entropy for
            integer targets and mean squared error for others where there is none.
        data: ``given`` where the inputs are data; ``gaussian`` puts standard normal values (and
            random classes where there are no targets) in their place; ``shapes`` says that their
            values mean nothing: what needs data is then a gap.
        draws: draws of the weights, over which means and standard errors are taken; 0 looks at
            the weights as they stand, as of a trained model.
        seed: of the draws.
        only: names of diagnostics; all without.

    Raises:
        UsageError: if an option, the targets or the loss make no sense.
        TraceError: if the model cannot be traced.
        AnalysisError: if the model cannot be copied, or raises on the batch.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)
        ... )
        >>> found = diagnose(net, torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]), draws=2)
        >>> round(found.value("capacity", "bits"))
        2816
        >>> [gap.where for gap in found.gaps]
        ['hyper-kernel', 'multiverse', 'virtual-depth']
    """
    from cerewrite import diagnostics
    from cerewrite.frontend import tracing
    from cerewrite.frontend.unwrapping import unwrap
    from cerewrite.runtime.modes import buffers_kept

    model = unwrap(model)
    with alone(), buffers_kept(model):
        given = as_inputs(inputs)
        traced = tracing.trace(model, given)
        return diagnostics.diagnose(
            traced,
            model,
            given,
            targets=targets,
            loss=loss,
            data=data,
            draws=draws,
            seed=seed,
            only=only,
        )
