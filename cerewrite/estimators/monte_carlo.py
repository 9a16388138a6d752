"""Monte-Carlo, the ground truth: one backward pass per draw (docs/theory.md, section 7)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from cerewrite.errors import AnalysisError, CerewriteError, ZeroKernelError
from cerewrite.estimators.analytic import Analytic
from cerewrite.estimators.base import (
    Assumption,
    Corrections,
    Estimator,
    LayerCorrection,
    register,
)
from cerewrite.estimators.draws import (
    Ratio,
    Subject,
    log_variance,
    make_subject,
    needed_draws,
    relative_variance,
)
from cerewrite.ir import Estimate, TracedModel
from cerewrite.runtime.alone import alone, waiting
from cerewrite.runtime.copies import deep_copy

E = TypeVar("E", bound=CerewriteError)

DEFAULT_DRAWS = 256
FEWEST = 8
CHUNK = 16
"""Draws per task of an executor, whatever the number of workers."""
TRUSTED = 0.25
"""Relative error of nu above which the draws are called too few."""


@register
class MonteCarlo(Estimator):
    """nu and Var[log K] over drawn initialisations; layers by the closed form where there is one.

    K is that of ``f = v . output`` of the first example, within its batch where batch norms mix
    it. Weights are Gaussian with the assumed gain, norms and free parameters stay as built.
    """

    name = "monte-carlo"
    reference = "docs/theory.md 1 and 7"

    def estimate(
        self, traced: TracedModel, model: nn.Module, example_inputs: Any, assumption: Assumption
    ) -> Corrections:
        """See `Estimator.estimate`.

        Raises:
            AnalysisError: if there are fewer than 8 draws, a kernel is not finite, or all are zero.
        """
        wanted = DEFAULT_DRAWS if assumption.draws is None else assumption.draws
        if wanted < FEWEST:
            raise too_few(wanted, AnalysisError)
        subject = subject_of(traced, model, example_inputs, assumption)
        kernels: list[float] = []
        alive: list[float] = []
        for chunk in drawn(subject, parts(0, wanted, CHUNK), assumption.executor):
            kernels += chunk
            alive = [kernel for kernel in kernels if kernel > 0]
            if len(alive) < 3:
                continue
            nu = relative_variance(kernels)
            if assumption.progress is not None:
                assumption.progress(len(kernels), wanted, nu.value)
            if assumption.precision is not None and nu.stderr <= assumption.precision * nu.value:
                break
        count, dead = len(kernels), len(kernels) - len(alive)
        if len(alive) < 3:
            raise ZeroKernelError(
                f"the tangent kernel is zero in {dead} of {count} draws",
                advice=f"no gradient arrives: {ZeroKernelError.ADVICE}",
            )
        log = log_variance(alive)
        notes = (*_notes(subject, assumption), *_tail(log.value, nu, count))
        if dead:
            notes += (f"{dead} draws are dead (K = 0); Var[log K] is without them",)
        layers = closed_form(traced, model, assumption)
        return Corrections(
            layers=marked(layers, subject, traced),
            nu=Estimate(nu.value, nu.stderr, count, self.name, self.reference),
            assumptions=notes,
            log_variance=Estimate(log.value, log.stderr, count, self.name, "docs/theory.md 11"),
            per_layer=layers is not None,
        )


def subject_of(
    traced: TracedModel, model: nn.Module, example_inputs: Any, assumption: Assumption
) -> Subject:
    """What measuring estimators measure under an assumption."""
    return make_subject(
        traced,
        model,
        example_inputs,
        standard=assumption.parametrization == "standard",
        gain=assumption.gain,
        seed=assumption.seed,
        readout=assumption.readout,
        running_norms=assumption.norms == "eval",
        redraw=assumption.redraw,
    )


def too_few(draws: int, kind: type[E]) -> E:
    """Why draws that were asked for are not made."""
    return kind(
        f"{draws} draws are too few for a variance with an error",
        advice=f"ask for {FEWEST} or more; a few hundred give nu to about 10 %",
    )


def parts(start: int, stop: int, size: int) -> list[range]:
    """Draws from one up to another, in parts of a size."""
    return [range(i, min(i + size, stop)) for i in range(start, stop, size)]


def drawn(
    subject: Subject, draws: Sequence[range], executor: Executor | None
) -> Iterator[list[float]]:
    """Kernels in the order of their draws, a part at a time."""
    if executor is None:
        for part in draws:
            yield [subject.kernel(index) for index in part]
        return
    futures = [executor.submit(run_draws, subject, part, os.getpid()) for part in draws]
    try:
        for future in futures:
            with waiting():  # threads of this process take their turns meanwhile
                chunk = future.result()
            yield chunk
    finally:
        for future in futures:
            future.cancel()


def run_draws(subject: Subject, indices: range, caller: int) -> list[float]:
    """Kernels of some draws on a private copy; what an executor's workers run.

    Args:
        subject: what is measured.
        indices: which draws.
        caller: process that asked; in another one, torch keeps to one thread per worker.
    """
    if os.getpid() != caller:
        torch.set_num_threads(1)
    with alone():
        # a copy even in another process: torch hands tensors over in shared memory
        own = replace(subject, model=deep_copy(subject.model))
        return [own.kernel(index) for index in indices]


def closed_form(
    traced: TracedModel, model: nn.Module, assumption: Assumption
) -> tuple[LayerCorrection, ...] | None:
    """The analytic layers, which a measured nu cannot be split into; None without a closed form."""
    try:
        return Analytic().estimate(traced, model, None, assumption).layers
    except AnalysisError:
        return None


def marked(
    layers: tuple[LayerCorrection, ...] | None, subject: Subject, traced: TracedModel
) -> tuple[LayerCorrection, ...]:
    """Layers with the refusals that only a run can see."""
    unreached = {name.rpartition(".")[0] for name in subject.unreached()}
    if layers is None:
        note = "no closed form: Monte-Carlo gives the model's nu, not the layer's share"
        layers = tuple(
            LayerCorrection(layer.name, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, None, note)
            for layer in traced.layers
        )
    return tuple(
        replace(layer, kappa=0.0, note="refused: its weight never gets a gradient")
        if layer.layer.partition("@")[0] in unreached
        else layer
        for layer in layers
    )


def _notes(subject: Subject, assumption: Assumption) -> tuple[str, ...]:
    how = "a user's initialiser" if assumption.redraw else "Gaussian weights of the gain"
    own = [fresh.module or "the model" for fresh in subject.fresh if not fresh.weight]
    how += f" (by their own reset_parameters: {', '.join(own)})" if own else ""
    statistics = "their batch's" if assumption.norms == "train" else "running"
    return (
        f"{how}, redrawn with seed {subject.seed}; all other parameters as built",
        f"K of the first example's read-out; norms on {statistics} statistics, dropout off",
        "per-layer rows are the closed form's",
    )


def _tail(spread: float, nu: Ratio, count: int) -> tuple[str, ...]:
    """A warning where the draws are too few for the tail of K."""
    needed = needed_draws(spread, TRUSTED)
    if count >= needed and nu.stderr <= TRUSTED * nu.value:
        return ()
    return (
        f"WARNING: {count} draws are few for Var[log K] = {spread:.2g}: nu is ruled by rare draws, "
        f"its own error is not to be trusted; take about {min(max(needed, 2 * count), 1e9):.0f} "
        "or read Var[log K]",
    )
