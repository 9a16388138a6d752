from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cerewrite.ir import RegionLayer
from cerewrite.rewriting.transfer import Rows, dense_weight, fit_block, read_rows, written_rows
from cerewrite.rewriting.transfer.fitting import RIDGES
from cerewrite.rewriting.transfer.patches import MOST_ROWS, positions


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_the_fit_solves_the_normal_equations_of_its_best_penalty() -> None:
    x, y, prior = draws(60, 7), draws(60, 3, seed=1), draws(3, 7, seed=2)
    fit = fit_block(x, y, prior, bias=True)
    assert fit.bias is not None
    centred = x - x.mean(0)
    pull = centred.T @ (y - x @ fit.weight.T - fit.bias)
    scale = centred.square().sum() / 7
    best = min(
        float((pull - ridge * scale * (fit.weight - prior).T).abs().max()) for ridge in RIDGES
    )
    assert best < 1e-8
    assert torch.allclose((y - x @ fit.weight.T - fit.bias).mean(0), torch.zeros(3).double())


def test_both_gram_matrices_give_one_answer() -> None:
    """Fewer rows than columns: the fit is the limit of the same problem."""
    x, y, prior = draws(12, 30), draws(12, 2, seed=1), draws(2, 30, seed=2)
    fit = fit_block(x, y, prior, bias=False)
    scale = x.square().sum() / 30
    gaps = [
        float((prior.T + torch.linalg.solve(
            x.T @ x + ridge * scale * torch.eye(30).double(), x.T @ (y - x @ prior.T)
        ) - fit.weight.T).abs().max())
        for ridge in RIDGES
    ]  # fmt: skip
    assert min([*gaps, float((fit.weight - prior).abs().max())]) < 1e-8


def test_noise_is_not_fitted_and_few_rows_keep_the_prior() -> None:
    x, prior = draws(40, 35), draws(2, 35, seed=3)
    fit = fit_block(x, x @ prior.T + 30 * draws(40, 2, seed=4), prior, bias=True)
    assert (fit.weight - prior).norm() < 0.5 * prior.norm()
    few = fit_block(x[:3], x[:3, :2], prior, bias=True)
    assert torch.equal(few.weight, prior)
    dead = fit_block(torch.zeros(20, 35), x[:20, :2], prior, bias=True)
    assert torch.equal(dead.weight, prior) and dead.bias is not None
    assert torch.allclose(dead.bias, x[:20, :2].mean(0))


def test_rows_of_convolutions_are_what_they_multiply() -> None:
    convs = (
        (nn.Conv1d(3, 5, 3, stride=2, padding=1), (2, 3, 9)),
        (nn.Conv2d(3, 5, (2, 3), dilation=2, padding="same"), (2, 3, 6, 7)),
        (nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="circular"), (2, 4, 5, 5)),
        (nn.Conv3d(2, 3, (1, 2, 2), stride=(1, 2, 1)), (2, 2, 3, 4, 5)),
        (nn.ConvTranspose1d(4, 6, 3, 2, groups=2, dilation=2), (2, 4, 5)),
        (nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), (2, 3, 4, 5)),
        (nn.ConvTranspose3d(2, 3, (1, 2, 3), padding=(0, 1, 2)), (2, 2, 3, 4, 5)),
    )
    for conv, shape in convs:
        conv = conv.double()
        x = draws(*shape)
        out = conv(x)
        rows = Rows.choose(positions(conv, out), torch.Generator().manual_seed(1))
        rows = Rows(rows.picked[::2])
        read = read_rows(conv, x, shape[1], rows)
        sizes = (conv.in_channels, conv.out_channels, read.shape[2])
        layer = RegionLayer("c", "conv", "interior", (0,), 0, *sizes, 1, True)
        product = F.linear(read.flatten(1), dense_weight(conv, layer).flatten(1), conv.bias)
        assert torch.allclose(product, written_rows(conv, out, rows))


def test_rows_are_limited_and_distinct() -> None:
    rows = Rows.choose(10 * MOST_ROWS, torch.Generator().manual_seed(0))
    assert len(rows.picked.unique()) == MOST_ROWS
    assert Rows.choose(7, torch.Generator()).picked.tolist() == list(range(7))
