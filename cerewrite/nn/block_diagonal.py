"""A linear layer whose weight is block-diagonal: members that never mix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cerewrite.errors import UsageError
from cerewrite.nn.blockwise import block_linear


class BlockDiagonalLinear(nn.Module):
    """``members`` linear layers side by side: member j reads and writes only its own features.

    The features of member j are the contiguous run ``[j * n, (j + 1) * n)``, as in a grouped
    convolution. One batched matrix product does the work, on ``[members, rows, n]`` views, or
    one convolution of size 1 in groups where that is quicker; the weight is stored so that
    neither forward nor backward transposes it (DESIGN 5), and in eager mode no activation is
    turned or copied on the way forward either (`cerewrite.nn.blockwise`).

    Args:
        in_features: features read, all members together; a multiple of ``members``.
        out_features: features written, all members together; a multiple of ``members``.
        members: number of blocks, at least 1.
        bias: whether to add a bias.
        device: where the parameters live.
        dtype: their type.

    Shape:
        weight ``[members, in / members, out / members]``, bias ``[out]``;
        input ``[..., in]``, output ``[..., out]``.

    Raises:
        UsageError: if the features do not divide into members.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer = BlockDiagonalLinear(6, 4, members=2)
        >>> layer(torch.ones(5, 6)).shape
        torch.Size([5, 4])
        >>> dense = torch.block_diag(*layer.weight).T
        >>> x = torch.randn(5, 6)
        >>> torch.allclose(layer(x), torch.nn.functional.linear(x, dense, layer.bias), atol=1e-6)
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        members: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if members < 1 or in_features % members or out_features % members:
            raise UsageError(
                f"BlockDiagonalLinear({in_features}, {out_features}) does not divide into "
                f"{members} members",
                advice="choose features that are multiples of the number of members",
            )
        self.in_features = in_features
        self.out_features = out_features
        self.members = members
        shape = (members, in_features // members, out_features // members)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias: nn.Parameter | None
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters as `torch.nn.Linear` does, with a member's own fan-in."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Apply every block to its own features; ``[..., in]`` to ``[..., out]``."""
        return block_linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"members={self.members}, bias={self.bias is not None}"
        )
