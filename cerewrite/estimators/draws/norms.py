r"""Units' weights in norms that divide by an example's own energy (docs/theory.md, section 30).

Of units with weights w such a norm takes ``m_w = mean(w x) / mean(w)`` and the energy
``mean(w (x - m_w)^2) / mean(w)``, and hands on ``(x_i - m_w) / sigma_w`` whatever w_i is. The
module itself is run on ``sqrt(w_i) y_i``, y the input less its mean, so that it is the module's
own arithmetic that is derived; what that leaves of the mean is added behind it.
"""

from __future__ import annotations

from torch import Tensor, nn

from cerewrite.estimators.draws.places import Place


def into_norm(module: nn.Module, x: Tensor, root: Tensor, place: Place) -> Tensor:
    """What the norm is run on.

    Args:
        module: the norm.
        x: its input.
        root: square roots of the units' weights, in a shape that broadcasts.
        place: where the units are.
    """
    centred = x - shared_mean(module, x, place.axis) if place.centred else x
    return centred * root


def out_of_norm(module: nn.Module, y: Tensor, output: Tensor, root: Tensor, place: Place) -> Tensor:
    """What the units hand on, from the norm's output on ``y`` of `into_norm`.

    The module gives ``(y_i - m) / sigma`` with ``m = mean(sqrt(w) y)`` where y is without
    weights. Over ``sqrt(w_i)`` its mean is ``m / sqrt(w_i)``, to first order half of ``m_w``.
    """
    bias = _parameter(module, "bias", output, place.axis)
    handed = (output - bias) / root + bias
    if not place.centred:
        return handed
    mean = shared_mean(module, y, place.axis)
    energy = shared_mean(module, y.square(), place.axis) - mean.square()
    weights = root.square().expand_as(y)
    wanted = shared_mean(module, y * root, place.axis) / shared_mean(module, weights, place.axis)
    shift = (mean / root - wanted) / energy.clamp_min(1e-30).sqrt()
    return handed + shift * _parameter(module, "weight", output, place.axis)


def shared_mean(module: nn.Module, x: Tensor, axis: int) -> Tensor:
    """The mean that a norm subtracts from its input, in a shape that broadcasts with it.

    Args:
        module: a layer, group or member norm; any other takes the mean over the axis.
        x: its input.
        axis: channel axis.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 2.0, 4.0, 6.0]])
        >>> shared_mean(nn.GroupNorm(2, 4), x, 1).tolist()
        [[1.0, 1.0, 5.0, 5.0]]
    """
    if isinstance(module, nn.LayerNorm) and axis == -1:
        return x.mean(tuple(range(-len(module.normalized_shape), 0)), keepdim=True)
    axis = axis % x.dim()
    members: int = getattr(module, "num_groups", getattr(module, "members", 1))
    size = x.shape[axis] // members
    parts = x.reshape(*x.shape[:axis], members, size, *x.shape[axis + 1 :])
    over = (*range(2, parts.dim()),) if isinstance(module, nn.GroupNorm) else (axis + 1,)
    means = parts.mean(over, keepdim=True)
    return means.repeat_interleave(size, axis + 1).flatten(axis, axis + 1)


def _parameter(module: nn.Module, name: str, like: Tensor, axis: int) -> Tensor:
    """A norm's weight or bias in a shape that broadcasts with its output; 1 or 0 without one."""
    value: Tensor | None = getattr(module, name, None)
    if value is None:
        return like.new_full((), float(name == "weight"))
    if value.dim() != 1 or (isinstance(module, nn.LayerNorm) and axis == -1):
        return value
    shape = [1] * like.dim()
    shape[axis] = len(value)
    return value.view(shape)
