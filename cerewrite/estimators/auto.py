"""The default: structure from the closed form, level from draws (docs/theory.md, section 31)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from cerewrite.errors import AnalysisError, NotFiniteError, UsageError
from cerewrite.estimators.analytic import Analytic
from cerewrite.estimators.base import (
    Assumption,
    Corrections,
    Estimator,
    LayerCorrection,
    register,
)
from cerewrite.estimators.draws import Ratio, Subject, log_variance, relative_variance
from cerewrite.estimators.jackknife import Jackknife
from cerewrite.estimators.monte_carlo import FEWEST, TRUSTED, marked, run_draws, subject_of
from cerewrite.ir import Estimate, TracedModel
from cerewrite.ops import rule_for

SECONDS = 20.0
"""Default time limit."""
MOST = 512
"""Draws, if the time allows: Var[log K] to 6 %."""
SPLITTING = 8
"""Jackknife draws, at most: one for every 8 plain ones."""
FIRST = 2
"""Draws that are timed before the others are counted out."""
DEARER = 6.0
"""Time of a jackknife draw over that of a plain one, about."""
DENSE = 0.03
DENSE_NORMED = 0.06
"""Relative error of the closed form's nu on dense networks up to nu = 1, without and with norms
(docs/ACCURACY.md); it counts for nothing where there are positions or batch norms."""
TAILS = 0.25
"""Relative error of log(1 + nu) as Var[log K]."""
LAYERWISE = 0.05
"""Relative error of its split between the layers of such networks."""
CLEAR = 3.0
"""Standard errors beyond which two figures differ."""
APART = 0.2
"""Relative difference below which they agree all the same."""
HOPELESS = 16
"""Dead draws after which none is expected to be alive."""
NAMED = 3
"""Layers that are named, at most."""


@register
class Auto(Estimator):
    """The closed form's structure with the level of Monte-Carlo draws, within a time limit.

    How a layer's correction depends on members and widths is the closed form's; what it is on
    the real module and inputs is measured: the model's nu and Var[log K] by drawing the weights,
    each layer's factor rho by a few draws of the jackknife. On dense networks, where the closed
    form is good, the two are combined by their inverse variances. The number of draws follows
    from the time that the first two take, at most 512; ``draws`` overrides it.

    Where nothing can be drawn (meta device, time), or K is zero in every draw because the inputs
    do not vary, the closed form stands alone and the first assumption says so. Where there is no
    closed form the jackknife gives the layers' moments.
    """

    name = "auto"
    reference = "docs/theory.md 31"

    def estimate(
        self, traced: TracedModel, model: nn.Module, example_inputs: Any, assumption: Assumption
    ) -> Corrections:
        """See `Estimator.estimate`.

        Raises:
            AnalysisError: if the draws are not finite; or if nothing can be drawn, or too little
                in the time, and there is no closed form either.
        """
        closed, refusal = _closed_form(traced, model, assumption)
        try:
            subject = subject_of(traced, model, example_inputs, assumption)
            kernels, count = _first_draws(subject, assumption)
        except NotFiniteError:
            raise
        except AnalysisError as error:
            return _alone(closed, refusal, error)
        if count.draws < FEWEST:
            return _alone(closed, refusal, _too_slow(count, assumption))
        split, refused = _split(traced, model, example_inputs, assumption, count)
        kernels += _more_draws(subject, assumption, count, len(kernels))
        if sum(kernel > 0 for kernel in kernels) < 3:
            return _alone(closed, refusal, _dead(subject, kernels))
        return _Levels(traced, subject, assumption, closed, split, kernels).combined(
            _variation(subject), (*_told(refusal), *refused)
        )


@dataclass(frozen=True, slots=True)
class _Count:
    """How many draws are made, and until when.

    Attributes:
        draws: plain draws.
        splitting: jackknife draws.
        until: when to stop early, by `time.perf_counter`; infinite where draws were asked for.
        each: seconds of one plain draw.
    """

    draws: int
    splitting: int
    until: float
    each: float


def _closed_form(
    traced: TracedModel, model: nn.Module, assumption: Assumption
) -> tuple[Corrections | None, AnalysisError | None]:
    """The analytic corrections, or why there are none."""
    try:
        return Analytic().estimate(traced, model, None, assumption), None
    except AnalysisError as error:
        return None, error


def _first_draws(subject: Subject, assumption: Assumption) -> tuple[list[float], _Count]:
    """The draws that are timed, and how many shall follow."""
    start = time.perf_counter()
    kernels = [subject.kernel(0)]
    warm = time.perf_counter()
    kernels += [subject.kernel(index) for index in range(1, FIRST)]
    each = (time.perf_counter() - warm) / (FIRST - 1)
    if assumption.draws is not None:
        if assumption.draws < FEWEST:
            raise UsageError(
                f"{assumption.draws} draws are too few for a variance with an error",
                advice=f"ask for {FEWEST} or more; a few hundred give nu to about 10 %",
            )
        wanted = assumption.draws
        return kernels, _Count(wanted, splitting_draws(wanted), math.inf, each)
    limit = SECONDS if assumption.seconds is None else assumption.seconds
    wanted = min(MOST, affordable(limit, each))
    return kernels, _Count(wanted, splitting_draws(wanted), start + limit, each)


def affordable(seconds: float, each: float) -> int:
    """Draws that fit a time limit together with their jackknife draws.

    Args:
        seconds: the limit.
        each: seconds of one plain draw, above 0.

    Example:
        >>> affordable(20.0, 0.1), affordable(20.0, 1.0), affordable(20.0, 11.0)
        (152, 11, 1)
    """
    many = seconds / each - DEARER * SPLITTING
    few = seconds / (each * (1.0 + DEARER / SPLITTING))
    return int(max(many, few, 0.0))


def splitting_draws(draws: int) -> int:
    """Jackknife draws beside so many plain ones: an eighth, from 2 to 8."""
    return max(2, min(SPLITTING, draws // 8))


def _more_draws(subject: Subject, assumption: Assumption, count: _Count, done: int) -> list[float]:
    """Kernels of the draws behind the first ones, until they are enough or the time is up."""
    found: list[float] = []
    for chunk in _chunks(subject, done, count.draws, assumption.executor):
        found += chunk
        made = done + len(found)
        if assumption.progress is not None and made % 8 == 0:
            so_far = relative_variance(found).value if len(found) > 2 else 0.0
            assumption.progress(made, count.draws, so_far)
        if made >= FEWEST and time.perf_counter() > count.until:
            break
        if made >= HOPELESS and not any(found):
            break
        if assumption.precision is not None and len(found) >= FEWEST:
            nu = relative_variance(found)
            if nu.stderr <= assumption.precision * nu.value:
                break
    return found


def _chunks(
    subject: Subject, start: int, stop: int, executor: Executor | None
) -> Iterator[list[float]]:
    if executor is None:
        for index in range(start, stop):
            yield [subject.kernel(index)]
        return
    parts = [range(i, min(i + FEWEST, stop)) for i in range(start, stop, FEWEST)]
    futures = [executor.submit(run_draws, subject, part, os.getpid()) for part in parts]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def _split(
    traced: TracedModel, model: nn.Module, inputs: Any, assumption: Assumption, count: _Count
) -> tuple[Corrections | None, tuple[str, ...]]:
    """The jackknife's layers, or why there are none."""
    asked = replace(assumption, draws=count.splitting, progress=None)
    try:
        return Jackknife().estimate(traced, model, inputs, asked), ()
    except AnalysisError as error:
        return None, (f"no factors by layer: {error.message}",)


def _alone(
    closed: Corrections | None, refusal: AnalysisError | None, error: AnalysisError
) -> Corrections:
    """The closed form without any measurement, saying so; an error where there is none."""
    if closed is None:
        assert refusal is not None
        raise AnalysisError(
            f"nothing can be measured ({error.message}), and the closed form refuses: "
            f"{refusal.message}",
            advice=refusal.advice,
        ) from error
    first = f"WARNING: closed form alone, nothing was measured: {error.message}"
    rough = (
        "positions are taken as alike (rho = 1): far too high on most convolutions, and no bound "
        "where there are norms",
        *closed.assumptions[1:],
    )
    return replace(closed, assumptions=(first, *rough))


def _too_slow(count: _Count, assumption: Assumption) -> AnalysisError:
    limit = SECONDS if assumption.seconds is None else assumption.seconds
    return AnalysisError(
        f"{FEWEST} draws do not fit the time limit of {limit:g} s",
        advice=f"allow more: --seconds {2 * FEWEST * count.each:.2g}",
    )


def _dead(subject: Subject, kernels: Sequence[float]) -> AnalysisError:
    dead = sum(not kernel > 0 for kernel in kernels)
    why = "the inputs do not vary" if _constant(subject) else "no gradient arrives"
    return AnalysisError(
        f"the tangent kernel is zero in {dead} of {len(kernels)} draws: {why}",
        advice="give real inputs; zero-initialised heads need --gain he",
    )


def _told(refusal: AnalysisError | None) -> tuple[str, ...]:
    return (f"no closed form, measured alone: {refusal.message}",) if refusal is not None else ()


def _constant(subject: Subject) -> bool:
    """Whether every value of every floating input is the same."""
    leaves = pytree.tree_leaves((subject.args, subject.kwargs))
    floats = [x for x in leaves if isinstance(x, torch.Tensor) and x.is_floating_point()]
    return bool(floats) and all(bool((x == x.flatten()[0]).all()) for x in floats if x.numel() > 1)


def _variation(subject: Subject) -> tuple[str, ...]:
    if not _constant(subject):
        return ()
    return (
        "WARNING: the inputs do not vary: positions and examples are alike, which those of real "
        "data are not; give real inputs",
    )


@dataclass(frozen=True, slots=True)
class _Levels:
    """Everything that was found, before it is put together.

    Attributes:
        traced: the model.
        subject: what was measured.
        assumption: under what.
        closed: the closed form's corrections, if any.
        split: the jackknife's, if any.
        kernels: K of every draw.
    """

    traced: TracedModel
    subject: Subject
    assumption: Assumption
    closed: Corrections | None
    split: Corrections | None
    kernels: Sequence[float]

    def combined(self, first: tuple[str, ...], notes: tuple[str, ...]) -> Corrections:
        """Measured levels, the split between layers, and what both rest on.

        Args:
            first: sentences to say before all others.
            notes: sentences to say behind them.
        """
        alive = [kernel for kernel in self.kernels if kernel > 0]
        measured, log = relative_variance(self.kernels), log_variance(alive)
        prior = self._prior()
        differs = prior is not None and (
            differ(measured, prior) or _heavier(log.value, prior.value, len(alive))
        )
        nu = measured if prior is None or differs else combine(measured, prior)
        layers = self._layers(shrink=prior is not None and not differs)
        if len(alive) < len(self.kernels):
            dead = len(self.kernels) - len(alive)
            notes += (f"{dead} draws are dead (K = 0); Var[log K] is without them",)
        if differs and prior is not None:
            notes += (self._difference(measured, prior),)
        drawn = len(self.kernels)
        return Corrections(
            layers=layers,
            nu=Estimate(nu.value, nu.stderr, drawn, Auto.name, Auto.reference),
            assumptions=(*first, *self._basis(prior, differs=differs), *notes, *_tail(nu, drawn)),
            log_variance=Estimate(log.value, log.stderr, drawn, Auto.name, Auto.reference),
            draws=0 if self.split is None else self.split.draws,
            per_layer=self.closed is not None or self.split is not None,
        )

    def _prior(self) -> Ratio | None:
        """The closed form's nu with its own error, where that is known to be small."""
        error = closed_form_error(self.traced)
        if self.closed is None or self.closed.nu is None or error is None:
            return None
        value = self.closed.nu.value
        return Ratio(value, error * value) if value <= 1.0 else None

    def _layers(self, *, shrink: bool) -> tuple[LayerCorrection, ...]:
        closed = None if self.closed is None else self.closed.layers
        if self.split is None:
            return marked(closed, self.subject, self.traced)
        if closed is None or not shrink:
            return self.split.layers
        return tuple(map(_shrunk, self.split.layers, closed))

    def _difference(self, measured: Ratio, prior: Ratio) -> str:
        """One sentence on a closed form that the draws contradict, with the layers."""
        found: list[tuple[float, str]] = []
        if self.split is not None and self.closed is not None:
            for at, flat in zip(self.split.layers, self.closed.layers, strict=True):
                if at.stderr and abs(at.kappa - flat.kappa) > 2 * at.stderr:
                    found.append((abs(at.kappa - flat.kappa), at.layer))
        names = ", ".join(name for _, name in sorted(found, reverse=True)[:NAMED])
        where = f"most at {names}" if names else "at no layer by itself"
        return (
            f"WARNING: closed form and draws differ: nu {prior.value:.3g} against "
            f"{measured.value:.3g} +- {measured.stderr:.2g}, {where}; the draws count"
        )

    def _basis(self, prior: Ratio | None, *, differs: bool) -> tuple[str, ...]:
        drawn, seed = len(self.kernels), self.subject.seed
        how = "a user's initialiser" if self.assumption.redraw else "Gaussian weights of the gain"
        statistics = "their batch's" if self.assumption.norms == "train" else "running"
        again = ""
        if self.split is None or self.split.draws == splitting_draws(drawn):
            again = f"; --draws {drawn} makes them again"
        lines = [
            f"nu and Var[log K] measured: {drawn} draws with seed {seed}{again}",
            f"{how}, all other parameters as built; norms on {statistics} statistics, dropout off",
        ]
        if prior is not None and not differs:
            lines.append(
                f"dense, so nu is combined with the closed form's, {prior.value:.3g} "
                f"+- {prior.stderr:.1g} (docs/ACCURACY.md)"
            )
        if self.split is not None:
            source = "closed form times factors" if self.closed else "shares"
            lines.append(
                f"layers: {source} of {self.split.draws} jackknife draws, scaled to the level"
            )
        elif self.closed is not None:
            lines.append("layers: the closed form's shares, scaled to the level")
        return tuple(lines)


def _heavier(log_variance: float, nu: float, draws: int) -> bool:
    """Whether a measured Var[log K] contradicts a nu, if ``log(1 + nu)`` is it to 25 %."""
    expected = math.log1p(nu)
    sampled = Ratio(log_variance, expected * math.sqrt(2.0 / draws))
    return differ(sampled, Ratio(expected, TAILS * expected))


def closed_form_error(traced: TracedModel) -> float | None:
    """Relative error of the closed form's nu on dense networks without positions; else None."""
    norms = {rule.name for rule in map(rule_for, traced.ops) if rule and "norm" in rule.name}
    if "batch_norm" in norms or any(y.op != "linear" or y.positions != 1 for y in traced.layers):
        return None
    return DENSE_NORMED if norms else DENSE


def closed_form_digits(traced: TracedModel) -> int:
    """Significant digits of the closed form's figures.

    3 on dense networks without norms, 2 with layer, group or RMS norms, 1 where there are
    positions or batch norms.
    """
    error = closed_form_error(traced)
    return 1 if error is None else 3 if error == DENSE else 2


def differ(one: Ratio, other: Ratio) -> bool:
    """Whether two figures differ beyond 3 standard errors and 20 %.

    Example:
        >>> differ(Ratio(1.5, 0.1), Ratio(1.0, 0.05)), differ(Ratio(1.1, 0.01), Ratio(1.0, 0.01))
        (True, False)
    """
    far = abs(one.value - other.value) > CLEAR * math.hypot(one.stderr, other.stderr)
    return far and abs(one.value - other.value) > APART * other.value


def combine(one: Ratio, other: Ratio) -> Ratio:
    """Two estimates of one figure, weighted by their inverse variances.

    Example:
        >>> combine(Ratio(1.2, 0.2), Ratio(1.0, 0.1))
        Ratio(value=1.04, stderr=0.0894427190999916)
    """
    if not (one.stderr > 0 and other.stderr > 0):
        return one if one.stderr <= other.stderr else other
    a, b = one.stderr**-2, other.stderr**-2
    return Ratio((a * one.value + b * other.value) / (a + b), (a + b) ** -0.5)


def _shrunk(at: LayerCorrection, flat: LayerCorrection) -> LayerCorrection:
    """A dense layer's jackknife combined with its closed form, which is good there."""
    if not at.stderr or not flat.kappa > 0:
        return at
    found = combine(Ratio(at.kappa, at.stderr), Ratio(flat.kappa, LAYERWISE * flat.kappa))
    rho = at.rho * found.value / at.kappa if at.kappa > 0 else found.value / flat.kappa
    return replace(at, rho=rho, kappa=found.value, stderr=found.stderr)


def _tail(nu: Ratio, count: int) -> tuple[str, ...]:
    """A warning where the draws are too few for the tail of K."""
    if nu.stderr <= TRUSTED * nu.value:
        return ()
    return (
        f"WARNING: {count} draws are few for nu, which rare draws rule here: its own error is not "
        "to be trusted; read Var[log K], or give --seconds and --draws more",
    )
