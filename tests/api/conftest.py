from __future__ import annotations

import pytest
import torch

import cerewrite
from cerewrite import ir
from tests.api.builders import INPUT, Net


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def analysis(net: Net) -> ir.Analysis:
    return cerewrite.analyze(net, INPUT, estimator="analytic")


@pytest.fixture(scope="module")
def conversion(net: Net) -> cerewrite.Conversion:
    return cerewrite.convert(net, INPUT, estimator="analytic")
