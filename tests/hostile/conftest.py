from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import WriteModel


@pytest.fixture
def model(write_model: WriteModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model file; its folder is the working directory."""
    path = write_model()
    monkeypatch.chdir(path.parent)
    return path
