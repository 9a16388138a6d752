from __future__ import annotations

import pytest
import torch
from torch import nn

from cerewrite.errors import UsageError
from cerewrite.nn import MemberLayerNorm, MemberRMSNorm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", [MemberLayerNorm, MemberRMSNorm])
def test_each_member_is_normalised_by_itself(kind: type[nn.Module], affine: bool) -> None:
    norm = kind(12, 3, 1e-5, affine).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(5, 2, 12, dtype=torch.float64)
    for j in range(3):
        own = slice(4 * j, 4 * j + 4)
        plain = nn.LayerNorm if kind is MemberLayerNorm else nn.RMSNorm
        narrow = plain(4, 1e-5, affine).double()
        for name, parameter in narrow.named_parameters():
            parameter.data = norm.get_parameter(name)[own].data
        torch.testing.assert_close(norm(x)[..., own], narrow(x[..., own]))


def test_without_bias() -> None:
    assert [n for n, _ in MemberLayerNorm(4, 2, bias=False).named_parameters()] == ["weight"]


def test_features_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="5 features"):
        MemberLayerNorm(5, 2)
