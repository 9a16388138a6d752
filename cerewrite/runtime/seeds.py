"""Seeds of parts of one computation: each part draws the same whatever the others do."""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, key: object) -> int:
    """The seed of one part, 0 to 2^63 - 1, from that of the whole.

    Args:
        seed: of the whole.
        key: which part; two with the same text are the same.

    Example:
        >>> seed_for(0, 3) == seed_for(0, "3"), seed_for(0, 3) == seed_for(1, 3)
        (True, False)
    """
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(seed: int, key: object) -> torch.Generator:
    """A CPU generator of one part: the same whatever the order, whichever process draws it."""
    return torch.Generator().manual_seed(seed_for(seed, key))
