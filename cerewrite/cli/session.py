"""What every command does around its verbs: load a model, show progress, print records."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

import cerewrite
from cerewrite import ir, output
from cerewrite.api import saving
from cerewrite.cli.reading import Given
from cerewrite.errors import UsageError, printable
from cerewrite.frontend import loading
from cerewrite.runtime.clock import Clock

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from torch import nn

WIDTH = 100
"""Columns of what is printed when standard output is no terminal."""

PATIENCE = 6.0
"""Seconds after which a stage is named where standard error is no terminal."""

STAGES: Mapping[str, str] = {
    "load": "loading the model",
    "trace": "tracing",
    "analyse": "computing corrections",
    "profile": "timing layers at several widths",
    "plan": "searching for the best members and widths",
    "assess": "asking the members",
    "diagnose": "computing diagnostics",
    "race": "training in turns",
    "rewrite": "rewriting",
    "measure": "measuring both models",
    "verify": "verifying",
    "bench": "timing both models",
    "export": "exporting to ONNX and checking parity",
    "save": "writing the folder",
}


@dataclass(slots=True)
class Session:
    """One run of one command.

    Attributes:
        shapes: example inputs that were asked for.
        seed: seed of every draw.
        quiet: print nothing but errors.
        verbose: print every row.
        force: replace what an earlier run wrote.
        clock: times the stages.
    """

    shapes: tuple[loading.InputShape, ...] = ()
    seed: int = 0
    quiet: bool = False
    verbose: bool = False
    force: bool = False
    clock: Clock = field(init=False)
    _began: float = field(init=False, default=0.0)
    _status: Status | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.clock = Clock(self._watch)

    @classmethod
    def start(cls, options: Given, *files: str | None, force: bool) -> Session:
        """Take the options that every command has out of ``options``.

        Args:
            options: of the command.
            files: what it is to write; where one is ``-``, nothing else is printed.
            force: replace what an earlier run wrote.

        Raises:
            OutputError: if one of the files will not be written.
        """
        threads = options.pop("threads", None)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        for path in files:
            check_file(path, force=force)
        return cls(
            shapes=options.pop("shapes", ()),
            seed=options.get("seed", 0),
            quiet=options.pop("quiet") or "-" in files,
            verbose=options.pop("verbose"),
            force=force,
        )

    def load(self, spec: str) -> tuple[loading.Loaded, loading.Inputs]:
        """A model and its example inputs.

        Raises:
            LoadError: if it cannot be loaded.
            UsageError: if neither the command nor the model's file gives inputs.
        """
        with self.clock("load"):
            loaded = loading.load(spec, seed=self.seed)
            return loaded, self.inputs(loaded.example_inputs, spec)

    def analyze(self, spec: str, options: Given) -> ir.Analysis:
        """Load a model and analyse it.

        Raises:
            CerewriteError: see `load` and `cerewrite.analyze`.
        """
        loaded, inputs = self.load(spec)
        return cerewrite.analyze(
            loaded.module, inputs, clock=self.clock, progress=self.progress, **options
        )

    def load_target(
        self, target: str, opening: Given
    ) -> tuple[nn.Module, nn.Module, loading.Inputs]:
        """Original, rewritten and inputs of an output folder; a model is both originals.

        Args:
            target: the folder or the model.
            opening: values of `cerewrite.cli.options.OPENING`.

        Raises:
            CerewriteError: see `cerewrite.load` and `load`.
        """
        folder = Path(target)
        if not folder.is_dir():
            if opening["model"] is not None or opening["trust"]:
                raise UsageError(f"{target}: no folder", advice="--model and --trust open folders")
            loaded, inputs = self.load(target)
            return loaded.module, loaded.module, inputs
        with self.clock("load"):
            plan = saving.read_plan(folder)
            if opening["model"] is None:
                original = output.original_of(folder, plan, trust=opening["trust"])
            else:
                original = loading.build(opening["model"])
            given = self.inputs(output.recorded_inputs(plan, seed=self.seed), target)
            rewritten = cerewrite.load(folder, original, max_params=opening["max_params"])
            return original, rewritten, given

    def inputs(self, given: loading.Inputs | None, what: str) -> loading.Inputs:
        """Those of ``--input``, or else those that came with the model.

        Raises:
            UsageError: if there are neither.
        """
        if self.shapes:
            return loading.make_inputs(self.shapes, seed=self.seed)
        if given is None:
            raise UsageError(
                f"{what}: no example inputs",
                advice="pass --input SHAPE, such as --input 1,3,224,224, or define "
                "example_inputs() in the model's file",
            )
        return given

    def console(self) -> Console:
        """Where records are printed; nothing appears if the run is quiet."""
        from rich.console import Console

        console = Console(quiet=self.quiet)
        if not console.is_terminal:
            console.width = WIDTH
        return console

    def say(self, text: str) -> None:
        """Print one line unless the run is quiet."""
        if not self.quiet:
            click.echo(printable(text, keep="\n"))

    def keep(self, path: str | None, record: object) -> None:
        """Write a record as JSON, if a file is named for it.

        Raises:
            OutputError: see `write_text`.
        """
        if path:
            write_text(path, ir.dumps(record), force=self.force)

    def progress(self, done: int, wanted: int, nu: float) -> None:
        """Show how far an estimator that measures has come, and its estimate so far.

        Args:
            done: draws made.
            wanted: draws asked for.
            nu: relative variance from the draws made.
        """
        if self._status is not None:
            self._status.update(
                f"{STAGES['analyse']}: {done:,} of {wanted:,} draws, nu about {nu:.4g}, "
                f"about {left(time.monotonic() - self._began, done, wanted)} left"
            )

    def tell(self, text: str, share: float) -> None:
        """Show what a race trains now, and the share of its time that is spent, 0 to 1."""
        if self._status is not None:
            self._status.update(f"{STAGES['race']}: {text} ({100 * share:.0f} % of the time)")

    def _watch(self, stage: str) -> AbstractContextManager[object]:
        named = stage != "load"  # torch is imported there, which takes long on a busy machine
        text = STAGES.get(stage, stage)
        return contextlib.nullcontext() if self.quiet else self._spin(text, named=named)

    @contextlib.contextmanager
    def _spin(self, text: str, *, named: bool) -> Iterator[None]:
        """A spinner on standard error while a stage runs; silent when that is no terminal.

        A ``named`` stage that lasts longer than `PATIENCE` gets a line there in any case, so that
        a log shows where a long run is.
        """
        from rich.console import Console

        console = Console(stderr=True)
        if not console.is_terminal:
            line = threading.Timer(PATIENCE, click.echo, (f"{text} ...",), {"err": True})
            line.daemon = True
            if named:
                line.start()
            try:
                yield
            finally:
                line.cancel()
            return
        self._began = time.monotonic()
        with console.status(f"{text} ...") as self._status:
            try:
                yield
            finally:
                self._status = None


def left(spent: float, done: int, wanted: int) -> str:
    """Time that the rest takes at the pace so far, rounded up.

    Example:
        >>> left(2.0, 10, 40), left(60.0, 100, 500), left(1.0, 40, 40)
        ('6 s', '4 min', '0 s')
    """
    seconds = spent * max(wanted - done, 0) / max(done, 1)
    return f"{math.ceil(seconds)} s" if seconds <= 100 else f"{math.ceil(seconds / 60)} min"


def write_text(path: str, text: str, *, force: bool) -> None:
    """Write a record to a file, or to standard output for ``-``.

    Raises:
        OutputError: if the file exists and must not be replaced, or cannot be written.
    """
    if path == "-":
        click.echo(text, nl=False)
    else:
        output.write_file(path, text, overwrite=force)


def check_file(path: str | None, *, force: bool) -> None:
    """Check before any long work that `write_text` will succeed.

    Raises:
        OutputError: if it will not.
    """
    if path not in (None, "-"):
        assert path is not None
        output.check_target(path, folder=False, overwrite=force)
