"""Where what is remembered between runs is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$CEREWRITE_CACHE``, else ``cerewrite`` in the user's cache folder; perhaps absent."""
    named = os.environ.get("CEREWRITE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(named or os.path.join(base, "cerewrite"))
