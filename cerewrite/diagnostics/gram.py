"""The empirical tangent kernel of a real module on a few inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cerewrite.errors import CerewriteError, UsageError, first_line
from cerewrite.ir.inputs import Inputs
from cerewrite.runtime.alone import alone
from cerewrite.runtime.modes import BATCH_NORMS, called, undisturbed
from cerewrite.runtime.trees import tensors


def gram(model: nn.Module, probes: Inputs, seed: int = 0) -> Tensor:
    """``K_ij = sum over parameters t of (df_i / dt)(df_j / dt)``, ``f_i = v . output(x_i)``.

    v is a fixed random unit vector over the first output's elements. Batch norms that train use
    the statistics of the probes; dropout is off. Gradients, buffers, flags and the random state
    of the model are as before afterwards. Memory: one gradient per probe.

    Args:
        model: the model; parameters that need no gradient do not count.
        probes: a batch of inputs.
        seed: of v.

    Returns:
        ``[probes, probes]``, float64, symmetric and positive semi-definite.

    Raises:
        UsageError: if the model does not take the probes, or nothing in it is trained.

    References:
        Jacot et al., Neural Tangent Kernel (arXiv 1806.07572), equation 5.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> gram(model, (torch.tensor([[1.0, 0.0], [3.0, 4.0]]),)).round().tolist()
        [[1.0, 3.0], [3.0, 25.0]]
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained or any(parameter.is_meta for parameter in trained):
        raise UsageError(
            "the model has no parameter that is trained and has values",
            advice="unfreeze its parameters, or build it on a real device",
        )
    norms = [m for m in model.modules() if m.training and isinstance(m, BATCH_NORMS)]
    with undisturbed(model, on_batch=norms), torch.enable_grad():
        outputs = _read_out(model, probes, seed)
        rows = [
            torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
            for value in outputs
        ]
    kernel = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for gradients in zip(*rows, strict=True):
        if gradients[0] is not None:
            flat = torch.stack([gradient.flatten() for gradient in gradients])
            kernel += (flat @ flat.T).double().cpu()
    return kernel


def _read_out(model: nn.Module, probes: Inputs, seed: int) -> Tensor:
    """``f_i`` of every probe."""
    try:
        with alone():
            tree = called(model, probes)
    except CerewriteError:  # no memory, or the program was to end: no fault of the probes
        raise
    except Exception as error:
        raise UsageError(
            f"the model does not take the probes: {first_line(error)}",
            advice="give a small batch of inputs as the model takes them",
        ) from error
    output = next((leaf for leaf in tensors(tree) if leaf.is_floating_point() and leaf.dim()), None)
    if output is None or not output.requires_grad:
        raise UsageError(
            "the model has no output that depends on its parameters",
            advice="give a model with a floating-point output, batch first",
        )
    flat = output.flatten(1) if output.dim() > 1 else output[:, None]
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(flat.shape[1], generator=generator, dtype=torch.float64)
    values: Tensor = flat @ (vector / vector.norm()).to(flat)
    return values
