"""What a model's forward is called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Inputs = tuple[Any, ...] | Mapping[str, Any]
"""Arguments of a user's ``forward``: in order, or by name; tensors, batch first, and others."""

Output: TypeAlias = Any
"""What a user's ``forward`` returns."""
