from __future__ import annotations

import numpy as np
import pytest

from cerewrite.errors import AnalysisError
from cerewrite.kernel.scattering import Draws


@pytest.mark.parametrize("log", [0.5, 1e3])
def test_draws_that_overflow_are_refused(log: float) -> None:
    draws = object.__new__(Draws)
    draws._linear, draws._total, draws._weights = np.full(2, log), 1.0, np.full(2, 0.5)
    if log < 1:
        assert draws.relative_variance(np.ones(2)) == pytest.approx(np.e - 1)
        return
    with pytest.raises(AnalysisError, match="exceeds 1e\\+100"):
        draws.relative_variance(np.ones(2))
