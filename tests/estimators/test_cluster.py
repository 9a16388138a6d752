"""Monte-Carlo on a cluster: dask's client is an executor like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cerewrite.estimators import ESTIMATORS, Assumption
from cerewrite.frontend.tracing import trace
from tests.models import chain

pytestmark = pytest.mark.thorough

distributed = pytest.importorskip(
    "distributed", reason="dask's scheduler is not installed: pip install 'cerewrite[dask]'"
)


def test_a_local_cluster_makes_the_same_draws(tmp_path: Path) -> None:
    model, x = chain([8, 8]), torch.ones(2, 7)
    traced, estimator = trace(model, x), ESTIMATORS["monte-carlo"]
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path),
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        there = estimator.estimate(traced, model, x, Assumption(draws=40, executor=executor))
    assert there.nu == estimator.estimate(traced, model, x, Assumption(draws=40)).nu
