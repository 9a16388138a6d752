"""One run at a time, and a process that is left as it was found.

A user's forward may set anything that belongs to the whole process, and tracing, checking and
exporting set some of it themselves: random states, the default type, attention's fast path, the
streams, the import path. So whatever runs a user's module does it alone (`alone`): threads take
turns, and what is process-wide is put back. `muted` drops what one thread prints and logs, and
nobody else's.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from cerewrite.errors import EndedError, ShortOfMemoryError, first_line, own_line

MOST_THREADS = max(256, 4 * (os.cpu_count() or 1))
"""Threads that may be asked for: at a hundred thousand torch ends the process."""


class _Turn:
    """A lock that its thread may take again, and lay down while it waits for others."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._owner: int | None = None
        self._depth = 0

    def take(self, depth: int = 1) -> None:
        """Wait until no other thread has it."""
        me = threading.get_ident()
        with self._free:
            self._free.wait_for(lambda: self._owner in (None, me))
            self._owner, self._depth = me, self._depth + depth

    def leave(self, depth: int = 1) -> None:
        """Give it back as often as it was taken."""
        with self._free:
            self._depth -= depth
            if not self._depth:
                self._owner = None
                self._free.notify()

    @property
    def mine(self) -> int:
        """How often the calling thread has taken it."""
        return self._depth if self._owner == threading.get_ident() else 0


_turn = _Turn()


def _forget() -> None:
    """In a forked child there is but one thread, and it holds nothing."""
    global _turn
    _turn = _Turn()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No other thread runs a module meanwhile, and what is process-wide is put back.

    Put back are the random states of torch, NumPy and Python, torch's default type, grad mode,
    deterministic flags, precision, number of threads and attention's fast path.

    Raises:
        EndedError: if the code inside calls ``sys.exit``.
        ShortOfMemoryError: if an allocation fails inside.

    Example:
        >>> import torch
        >>> with alone():
        ...     torch.set_default_dtype(torch.float64)
        >>> torch.get_default_dtype()
        torch.float32
    """
    with in_turn(), _kept():
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not short_of_memory(error):
                raise
            raise ShortOfMemoryError(
                f"the memory of this machine is too small: {first_line(error)}{own_line(error)}",
                advice="give smaller example inputs (--input), a batch of 2 above all, or more "
                "memory: three times the model's parameters and one training step",
            ) from error
        except SystemExit as error:
            raise EndedError(
                f"the model's own code ends the program: SystemExit: {error.code}{own_line(error)}",
                advice="let it raise an error instead",
            ) from error


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """No other thread runs a module meanwhile; nothing is put back."""
    turn = _turn
    turn.take()
    try:
        yield
    finally:
        turn.leave()


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Let other threads take their turns while this one waits for their results."""
    turn = _turn
    depth = turn.mine
    if depth:
        turn.leave(depth)
    try:
        yield
    finally:
        if depth:
            turn.take(depth)


def short_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, in Python or in torch.

    Example:
        >>> short_of_memory(MemoryError()), short_of_memory(ValueError("no"))
        (True, False)
    """
    if isinstance(error, MemoryError | ShortOfMemoryError):
        return True
    text = str(error)
    told = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")
    return isinstance(error, RuntimeError) and any(words in text for words in told)


class Stopped(BaseException):
    """The process was told to end, from outside; no `SystemExit`, so that no loader takes it."""


Setting = tuple[Callable[[], Any], Callable[[Any], object]]
"""What reads a setting of the process, and what writes it."""


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    settings = _settings()
    before = [read() for read, _ in settings]
    try:
        yield
    finally:
        for (read, write), value in zip(settings, before, strict=True):
            if not _same(read(), value):
                write(value)


def _same(now: Any, before: Any) -> bool:
    """Whether nothing changed; states that are no plain values are written back in any case."""
    if type(now) is type(before) and isinstance(now, bool | int | float | str | tuple):
        return bool(now == before)
    return now is before


def _settings() -> list[Setting]:
    """Everything that a forward is known to set, of the packages that are there."""
    import random

    import torch

    def deterministic() -> tuple[bool, bool]:
        warn = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled(), warn

    found: list[Setting] = [
        (random.getstate, random.setstate),
        (torch.get_rng_state, torch.set_rng_state),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (deterministic, lambda old: torch.use_deterministic_algorithms(old[0], warn_only=old[1])),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (
            torch.backends.mha.get_fastpath_enabled,
            torch.backends.mha.set_fastpath_enabled,
        ),
        *(_flag(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")),
        _flag(torch.utils.deterministic, "fill_uninitialized_memory"),
    ]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    if (numpy := sys.modules.get("numpy")) is not None:

        def drawn() -> tuple[Any, ...]:
            kind, key, *further = numpy.random.get_state()
            return kind, key.tobytes(), *further  # bytes are compared at once

        def draw_from(old: tuple[Any, ...]) -> None:
            numpy.random.set_state((old[0], numpy.frombuffer(old[1], numpy.uint32), *old[2:]))

        found.append((drawn, draw_from))
        found.append((numpy.geterr, lambda old: numpy.seterr(**old)))
    return found


def _flag(place: Any, name: str) -> Setting:
    return functools.partial(getattr, place, name), functools.partial(setattr, place, name)


class _Muted:
    """A stream that drops what one thread writes, and hands on what all others do."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._thread = stream, threading.get_ident()
        self.over = False

    def write(self, text: str) -> int:
        """Write, or drop."""
        if not self.over and threading.get_ident() == self._thread:
            return len(text)
        return int(self._stream.write(text) or 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def printing_dropped() -> Iterator[None]:
    """Drop what this thread writes to standard output and standard error."""
    streams = [_Muted(sys.stdout), _Muted(sys.stderr)]
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            yield
    finally:
        for stream in streams:
            stream.over = True


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Drop what this thread prints, logs and warns: a failing export prints its whole graph."""
    me = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != me

    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(others)
    try:
        with warnings.catch_warnings(), printing_dropped():
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(others)


def _handlers() -> list[logging.Handler]:
    """Every handler that a logger of this process has, and the last resort."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    found = [h for logger in loggers if isinstance(logger, logging.Logger) for h in logger.handlers]
    last = logging.lastResort
    return [*dict.fromkeys(found), *([last] if last is not None else [])]
