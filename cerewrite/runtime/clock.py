"""How long each stage takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any


class Clock:
    """Times stages, and tells a watcher (a progress display) when each begins and ends.

    Args:
        watch: called with a stage's name; its context lasts as long as the stage.

    Example:
        >>> clock = Clock()
        >>> with clock("trace"):
        ...     pass
        >>> [name for name, seconds in clock.seconds]
        ['trace']
    """

    def __init__(
        self, watch: Callable[[str], AbstractContextManager[Any]] = contextlib.nullcontext
    ) -> None:
        self._watch = watch
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one stage; the times of one name add up."""
        start = time.perf_counter()
        try:
            with self._watch(stage):
                yield
        finally:
            spent = time.perf_counter() - start
            self._seconds[stage] = round(self._seconds.get(stage, 0.0) + spent, 4)

    @property
    def seconds(self) -> tuple[tuple[str, float], ...]:
        """Seconds per stage, in the order in which they began."""
        return tuple(self._seconds.items())
