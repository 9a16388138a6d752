"""A warm allocator: freed memory stays with the process, so that no timed call maps it anew."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGE = 1 << 30


def keep_memory() -> str:
    """Keep freed memory for the rest of this process; returns what to say about it.

    glibc otherwise maps large buffers afresh, or gives the heap's end back, and the first touch of
    every page then counts as the work of whoever allocates next.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt and all(mallopt(key, LARGE) for key in (TRIM_THRESHOLD, MMAP_THRESHOLD)):
            return "freed memory kept by the process (mallopt)"
    return "the allocator as it is"
