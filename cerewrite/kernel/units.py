r"""One unit of a width class as a function of the Gaussians behind it.

Between sampled layers, operators act unit by unit (docs/theory.md, section 15): what a layer reads
of unit i is a function of the values that the layers before wrote into unit i, and those are
independent Gaussians in the limit of wide layers, alike for all units. A `Unit` is that function,
kept as a graph of sums, products, pointwise functions and norms over `GaussianTerm` Gaussians;
`integrals` takes its moments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[np.float64]
Tangent = Array | float
Function = Callable[..., Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class GaussianTerm:
    """What one layer writes into a unit: a Gaussian.

    Attributes:
        layer: name of the sampled layer; "" for what no layer draws (inputs, parameters).
        mean: its mean: 0 for what is drawn.
        deviation: its standard deviation.
        units: how many units there are; 0 where unknown.
        share: the share of the layer's units that are of this kind.
        q, kernel: its mean square and tangent kernel, differentiable.
        common: whether it is what all examples of a batch have in common.
        overlap: root mean square of its correlation between two examples of a batch.
    """

    layer: str
    mean: float
    deviation: float
    units: float
    share: float
    q: Tensor
    kernel: Tensor
    common: bool = False
    overlap: float = 0.0

    @property
    def rate(self) -> Tensor:
        """The kernel over the variance, for slopes by a unit variance; the kernel if that is 0."""
        return self.kernel / self.deviation**2 if self.deviation > 0 else self.kernel


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A norm over the units of an example: ``(x - mean) scale`` (docs/theory.md, eq. 61).

    Attributes:
        mean: the mean over units that it subtracts, nominal.
        scale: what it multiplies with, nominal.
        energy: the relative change e of the energy that it divides out (eq. 56), differentiable.
        shift: the change of the mean in standard deviations (tau in eq. 56), differentiable.
        read: what it reads, as (unit, slot): slots of the noise of the energies, followed
            by those of the means; empty where an example does not see its own.
        centred: whether it subtracts the mean.
        deviation: standard deviation of what it reads.
    """

    mean: float
    scale: float
    energy: Tensor
    shift: Tensor
    read: tuple[tuple[Unit, int], ...]
    centred: bool
    deviation: float


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """A node: ``term``, ``apply``, ``add``, ``multiply``, ``norm`` or ``batch``.

    Attributes:
        kind: one of these.
        inputs: the nodes that it reads.
        terms, norms: the terms behind it and the norms that see the example's own energy, in
            order of first use.
        effective_batch_size: N of docs/theory.md, eq. 63, per term behind a batch norm.
    """

    kind: str
    inputs: tuple[Unit, ...] = ()
    function: Function = None
    key: Any = None
    term: GaussianTerm | None = None
    norm: Norm | None = None
    terms: tuple[GaussianTerm, ...] = ()
    norms: tuple[Norm, ...] = ()
    effective_batch_size: dict[GaussianTerm, float] = field(default_factory=dict)


def make_unit(kind: str, *inputs: Unit, **rest: Any) -> Unit:
    """A node with the terms and norms behind it."""
    terms = dict.fromkeys(term for u in inputs for term in u.terms)
    norms = dict.fromkeys(norm for u in inputs for norm in u.norms)
    if (term := rest.get("term")) is not None:
        terms[term] = None
    if (norm := rest.get("norm")) is not None and norm.read:
        norms[norm] = None
    effective_batch_size = {
        term: size for u in inputs for term, size in u.effective_batch_size.items()
    }
    if kind == "batch":
        effective_batch_size = dict.fromkeys(terms, rest["key"][0])
    return Unit(
        kind,
        inputs,
        terms=tuple(terms),
        norms=tuple(norms),
        effective_batch_size=effective_batch_size,
        **rest,
    )


def without_shared_part(unit: Unit, known: dict[Unit, Unit]) -> Unit:
    """A sum of terms less what all examples of a batch have in common; other units unchanged.

    Args:
        unit: the sum.
        known: what was answered before; entered here, so that equal questions get one unit.
    """
    if not any(term.common for term in unit.terms) or unit.kind != "add":
        return unit
    if unit not in known:
        varying = [u for u in unit.inputs if u.term is None or not u.term.common]
        varying = [without_shared_part(u, known) for u in varying]
        known[unit] = make_unit("add", *varying) if len(varying) == 2 else varying[0]
    return known[unit]
