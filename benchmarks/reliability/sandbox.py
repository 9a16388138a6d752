"""Cases run in a process of their own: limited in time and memory, and watched for writes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hypothesis
from hypothesis import strategies as st

from benchmarks.reliability.group import Counts
from cerewrite.errors import CerewriteError

SECONDS = 20.0
"""Time on a processor that one case may take."""

WAITING = 6.0
"""Times that on the clock: the machine may be shared, and a pipe is waited for in no time."""

MEMORY = 2 << 30
"""Bytes of address space that a process may take beyond what it had before the first case."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = """
os.remove os.rename os.mkdir os.rmdir os.link os.symlink os.truncate os.chmod
os.system os.exec os.fork os.posix_spawn subprocess.Popen socket.connect socket.bind
"""
_EVENTS = frozenset(_CHANGING.split())  # names of Python's audit events


class Hang(BaseException):
    """A case has run out of time."""


def try_all(
    cases: st.SearchStrategy[Any],
    prepare: Callable[[Path, Any], None],
    attempt: Callable[[Path], object],
    count: int,
    *,
    seconds: float = SECONDS,
) -> Counts:
    """Try many cases in a forked process.

    Args:
        cases: draws a case; the draws are the same at every run.
        prepare: writes a case to the path that it is given.
        attempt: what is tried with that file; a `CerewriteError` is a refusal.
        count: how many.
        seconds: time for one case.

    Returns:
        The counts; a process that died counts as one untyped error, one that does not end as a
        hang.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(
        target=_in_child, args=(there, cases, prepare, attempt, count, seconds), daemon=True
    )
    child.start()
    there.close()
    try:
        if not here.poll(60.0 + 2 * WAITING * seconds + count * 2.0):
            child.kill()
            return Counts(count, 0, 0, hangs=1)
        found: Counts = here.recv()
        return found
    except EOFError:
        child.join()
        return Counts(count, 0, 0, untyped=(f"the process ended with {child.exitcode}",))
    finally:
        child.join(10)


def _in_child(
    pipe: Any,
    cases: st.SearchStrategy[Any],
    prepare: Callable[[Path, Any], None],
    attempt: Callable[[Path], object],
    count: int,
    seconds: float,
) -> None:
    watched = Watch()
    sys.addaudithook(watched.see)
    signal.signal(signal.SIGALRM, _end)
    signal.signal(signal.SIGPROF, _end)
    tally: Counter[str] = Counter()
    errors: dict[str, None] = {}
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        path = Path(folder) / "case"
        limit_memory()

        @hypothesis.settings(
            max_examples=count,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(cases)
        def each(case: Any) -> None:
            nonlocal slowest
            prepare(path, case)
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.setitimer(signal.ITIMER_REAL, WAITING * seconds)
            watched.active = True
            try:
                attempt(path)
                tally["accepted"] += 1
            except CerewriteError:
                tally["refused"] += 1
            except Hang:
                tally["hangs"] += 1
            except BaseException as error:
                text = f"{type(error).__name__}: {error}"[:300]
                errors.setdefault(text)
                tally["untyped"] += 1
            finally:
                watched.active = False
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - start)

        each()
        os.chdir("/")
    known = tally["accepted"], tally["refused"]
    pipe.send(
        Counts(sum(tally.values()), *known, tuple(errors), tally["hangs"], watched.writes, slowest)
    )


class Watch:
    """Counts what changes the world while it is active."""

    def __init__(self) -> None:
        self.active = False
        self.writes = 0

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        if not self.active:
            return
        if event == "open":
            path, _, flags = arguments
            writing = isinstance(flags, int) and flags & _WRITING
            self.writes += bool(writing) and path != os.devnull
        elif event == "os.mkdir":
            self.writes += not os.path.isdir(arguments[0])  # torch makes sure of its cache
        else:
            self.writes += event in _EVENTS


def limit_memory(more: int = MEMORY) -> None:
    """Let this process take no more than ``more`` bytes beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise Hang
