"""What an estimator is: one way to get the finite-width corrections of a traced model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import nn

from cerewrite.errors import AnalysisError
from cerewrite.ir import Estimate, TracedModel
from cerewrite.registry import Registry

Parametrization = Literal["ntk", "standard"]
Norms = Literal["train", "eval"]


@dataclass(frozen=True, slots=True)
class Assumption:
    """What an estimate is conditional on.

    Attributes:
        parametrization: ``ntk`` (scale-free) or ``standard`` (what an optimiser sees).
        gain: ``fan_in * Var[W]`` of every layer, biases zero; None for the weights as built.
        draws: initialisations that measuring estimators draw; None for each one's default. With
            a ``precision`` it is the largest number.
        seed: every draw's generator is seeded with (seed, index of the draw).
        precision: relative standard error of nu at which Monte-Carlo stops; None for all draws.
        seconds: time limit of ``auto``, above 0; None for its own. It fixes the number of draws,
            so that the same ``draws`` make the same figures again on any machine.
        readout: ``""`` for a fixed unit vector over the channels of the first output; else an
            output's name or index, a channel, or both: ``logits``, ``:3``, ``logits:3``.
        norms: whether batch statistics are the batch's own or the running ones.
        redraw: ``f(model, generator)`` that draws all weights of a model in place, instead of
            Gaussians; ``init`` is another thing, how a plan's members are drawn.
        executor: where Monte-Carlo runs its draws; None for the calling thread.
        progress: called with draws done, draws wanted and nu so far.
    """

    parametrization: Parametrization = "ntk"
    gain: float | None = None
    draws: int | None = None
    seed: int = 0
    precision: float | None = None
    seconds: float | None = None
    readout: str = ""
    norms: Norms = "train"
    redraw: Callable[[nn.Module, torch.Generator], None] | None = None
    executor: Executor | None = None
    progress: Callable[[int, int, float], None] | None = None


class Measuring(TypedDict, total=False):
    """The fields of `Assumption` that only measuring estimators look at."""

    draws: int | None
    seed: int
    precision: float | None
    seconds: float | None
    readout: str
    norms: Norms
    redraw: Callable[[nn.Module, torch.Generator], None] | None
    executor: Executor | None
    progress: Callable[[int, int, float], None] | None


@dataclass(frozen=True, slots=True)
class LayerCorrection:
    """One sampled layer's finite-width correction (docs/theory.md, sections 4 and 6).

    Attributes:
        layer: name of the sampled layer.
        forward_share: d log K / d log(forward second moment).
        backward_share: d log K / d log(backward second moment).
        v_aa, v_bb, v_ab: relative (co)variances of one unit's energies.
        rho: spatial factor, at least 0; 1 for dense layers, and above where the closed form is low.
        kappa: the correction.
        stderr: its standard error; None for closed forms.
        note: what is approximate about it.
        c_norm: what the energy that a norm divides out adds, at one unit.
    """

    layer: str
    forward_share: float
    backward_share: float
    v_aa: float
    v_bb: float
    v_ab: float
    rho: float
    kappa: float
    stderr: float | None = None
    note: str = ""
    c_norm: float = 0.0


@dataclass(frozen=True, slots=True)
class Corrections:
    """What an estimator returns.

    Attributes:
        layers: per sampled layer, in execution order.
        nu: the model's nu where the estimator measures it; None to compose it from the layers.
        assumptions: what the figures rest on, one sentence each.
        log_variance: Var[log K] where the estimator measures it (docs/theory.md, section 11).
        per_layer: whether the layers' figures are estimates at all.
        draws: independent draws behind the layers' figures; 0 for closed forms.
        ungrouped: whether nu is that of the units without existing groups, whose members are
            narrower (docs/theory.md, eq. 24).
    """

    layers: tuple[LayerCorrection, ...]
    nu: Estimate | None
    assumptions: tuple[str, ...]
    log_variance: Estimate | None = None
    draws: int = 0
    per_layer: bool = True
    ungrouped: bool = False


class Estimator(ABC):
    """One registered way to estimate finite-width corrections.

    Attributes:
        name: registered name.
        reference: paper and equation, or section of docs/theory.md.
    """

    name: ClassVar[str]
    reference: ClassVar[str]

    @abstractmethod
    def estimate(
        self, traced: TracedModel, model: nn.Module, example_inputs: Any, assumption: Assumption
    ) -> Corrections:
        """The corrections of every sampled layer.

        Raises:
            AnalysisError: if the estimate cannot be made.
        """


ESTIMATORS: Registry[Estimator] = Registry(
    "estimator", "cerewrite.estimators", "cerewrite.estimators"
)


register = ESTIMATORS.instance


def require_first_output(readout: str, traced: TracedModel) -> None:
    """Refuse a read-out of another output than the first, or of a channel that it has not.

    Any channel of the first output has the same closed form: all are alike at initialisation.

    Args:
        readout: see `Assumption`.
        traced: the model.

    Raises:
        AnalysisError: if the closed form has no such read-out.
    """
    output, _, channel = readout.partition(":")
    if output not in ("", "0") or not (channel or "0").isdecimal():
        raise AnalysisError(
            f"the closed form is that of the first output, the read-out asks for '{readout}'",
            advice="use --estimator jackknife or monte-carlo",
        )
    shapes = {op.name: op.shape for op in traced.ops}
    ends = [op.inputs[0] for op in traced.ops if op.target == "output" and op.inputs]
    if channel and ends and len(shapes[ends[0]]) > 1 and int(channel) >= shapes[ends[0]][1]:
        raise AnalysisError(
            f"the output has {shapes[ends[0]][1]} channels, the read-out asks for {channel}",
            advice=f"choose a channel from 0 to {shapes[ends[0]][1] - 1}",
        )
