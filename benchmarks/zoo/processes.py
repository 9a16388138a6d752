"""One process per model, forked from a server that has imported everything once."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext, ForkServerContext
from multiprocessing.process import BaseProcess

from benchmarks.zoo.catalogue import Entry
from benchmarks.zoo.store import Record


@dataclass(frozen=True, slots=True)
class Limits:
    """What one model may use.

    Attributes:
        seconds: processor seconds; ten times as much on the clock.
        gigabytes: address space.
    """

    seconds: float
    gigabytes: float


def context() -> ForkServerContext:
    """Where processes come from; the server starts with the first of them."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["benchmarks.zoo.preload"])
    return found


def work(server: BaseContext, entry: Entry, limits: Limits, *, onnx: bool = False) -> Record:
    """One model in a process of its own; a limit that is passed is a record too."""
    start = time.perf_counter()
    receiver, sender = server.Pipe(duplex=False)
    process: BaseProcess = server.Process(  # type: ignore[attr-defined]
        target=_serve, args=(sender, entry, limits, onnx), daemon=True
    )
    process.start()
    sender.close()
    lines = _listen(receiver, start + 10 * limits.seconds)
    record = conclude(entry, lines, _end(process), limits)
    return record | {"wall": round(time.perf_counter() - start, 1)}


def conclude(entry: Entry, lines: Sequence[str], code: int | None, limits: Limits) -> Record:
    """The record of a process: the last that it sent, with its end where it sent no whole one.

    Args:
        entry: the model.
        lines: records as they grew, in JSON.
        code: the exit code; None if the process had to be stopped.
        limits: what it was given.
    """
    record: Record = {"name": entry.name, "source": entry.source, "family": entry.family}
    record |= json.loads(lines[-1]) if lines else {"stage": "load"}
    if "seconds" not in record:  # they come last
        record["seconds"] = {}
        if code in (-signal.SIGXCPU, None):
            record |= {"outcome": "out of time", "error": f"not done after {limits.seconds:g} s"}
        else:
            record |= {"outcome": "crashed", "error": f"exit {code}"}
    if any(text in record.get("error", "") for text in ("allocate memory", "MemoryError")):
        record["outcome"] = "out of memory"
    return record


def _listen(receiver: Connection, until: float) -> list[str]:
    """What a process says until it ends, or its time is up."""
    lines: list[str] = []
    with contextlib.suppress(EOFError, OSError), receiver:
        while receiver.poll(max(until - time.perf_counter(), 0)):
            lines.append(receiver.recv())
    return lines


def _end(process: BaseProcess) -> int | None:
    """The exit code; None if the process had to be stopped."""
    process.join(10)
    if process.exitcode is not None:
        return process.exitcode
    process.kill()
    process.join()
    return None


def _serve(sender: Connection, entry: Entry, limits: Limits, onnx: bool) -> None:
    """In the process: set the limits, work, and send the record as it grows."""
    size, processor = int(limits.gigabytes * 1e9), int(limits.seconds)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor + 5))
    from benchmarks.zoo.worker import work_on

    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)

    def say(record: Record) -> None:
        sender.send(json.dumps(record))

    say(work_on(entry, onnx=onnx, say=say))
