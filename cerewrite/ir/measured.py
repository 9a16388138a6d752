"""Estimates: of a number, a layer, a region; the measures that every record states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from cerewrite.ir.ranges import Cost, Extended, Index, Size, Text, Word
from cerewrite.ir.regions import Region

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measures(Generic[T]):
    """Every measure of finite width, of a region or a model: numbers or estimates.

    docs/theory.md, section 11. A registered measure names the field that holds it; records carry
    this value whole.

    Attributes:
        nu: relative variance of K, ``Var[K] / E[K]^2``.
        log_variance: ``Var[log K]``.
        leading_order: sum of the kappas at total width.
        sign_variance: ``Var[log K1]`` of the sign kernel (docs/theory.md, section 12).
    """

    FLAT: ClassVar[bool] = True
    nu: T
    log_variance: T
    leading_order: T
    sign_variance: T


class Measured(Generic[T]):
    """A record that carries measures; each can be read off the record itself."""

    __slots__ = ()
    measures: Measures[T]

    @property
    def nu(self) -> T:
        """Relative variance of K."""
        return self.measures.nu

    @property
    def log_variance(self) -> T:
        """``Var[log K]``."""
        return self.measures.log_variance

    @property
    def leading_order(self) -> T:
        """Sum of the kappas."""
        return self.measures.leading_order

    @property
    def sign_variance(self) -> T:
        """``Var[log K1]`` of the sign kernel."""
        return self.measures.sign_variance


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its error.

    Attributes:
        value: the estimate.
        stderr: its standard error; None for closed forms.
        samples: independent draws behind it; 0 for closed forms.
        method: registered estimator that made it.
        reference: paper and equation, or section of docs/theory.md.
    """

    value: Extended
    stderr: Extended | None
    samples: Cost
    method: Word
    reference: Text


@dataclass(frozen=True, slots=True)
class LayerEstimate:
    """The finite-width correction of one sampled layer.

    Attributes:
        name: qualified name of the layer.
        width: units, that is, output channels.
        kappa: its contribution to log E[K^2]/E[K]^2; 0 for a read-out layer.
        kappa_stderr: standard error of kappa; None for closed forms.
        forward_share: share of K that scales with its forward second moment.
        backward_share: share of K that scales with its backward second moment.
        share: kappa over the sum of all kappas, in [0, 1].
        v_aa, v_bb, v_ab: relative (co)variances of one unit's energies (docs/theory.md, eq. 19).
        rho: spatial factor, at least 0; 1 for dense layers, and above where the closed form is low.
        region: name of the region that can split its width, or None.
        params: parameters of the layer.
        flops: FLOPs per example.
        frontend: which tracer saw it.
        note: what is approximate about the figure, "" if nothing.
    """

    name: Text
    width: Size
    kappa: Extended
    kappa_stderr: Extended | None
    forward_share: Extended
    backward_share: Extended
    share: Extended
    v_aa: Extended
    v_bb: Extended
    v_ab: Extended
    rho: Extended
    region: Text | None
    params: Cost
    flops: Cost
    frontend: Word
    note: Text = ""


@dataclass(frozen=True, slots=True)
class RegionEstimate(Measured[float]):
    """One region's own measures, with the region's structure.

    Attributes:
        name: name of the region.
        measures: of its part of K.
        region: its structure.
    """

    name: Text
    measures: Measures[Extended]
    region: Region


@dataclass(frozen=True, slots=True)
class ModuleSummary:
    """One module of the model as it was traced.

    Attributes:
        name: qualified name; "" for the model itself.
        kind: name of its class.
        shape: of its weight, or else of its first parameter; () where it owns none.
        params: parameters of its own, without those of modules inside; one that is shared counts
            at its first module.
        nodes: names of its own operators in the traced graph.
    """

    name: Text
    kind: Text
    shape: tuple[Index, ...]
    params: Cost
    nodes: tuple[Text, ...] = ()
