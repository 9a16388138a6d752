"""Integrals over units: expectations and their derivatives (docs/theory.md, section 15).

They are taken on a fine grid for one term (exact to rounding for smooth functions, to about 1e-6
for kinks), on a square grid for two (1e-4), and on low-discrepancy points for more (1 per cent).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cerewrite.kernel.activation import gaussian_grid
from cerewrite.kernel.averages import averages, densities, log_curvature, on_grid
from cerewrite.kernel.curves import STEPS, tabled
from cerewrite.kernel.evaluation import Space, evaluate_node
from cerewrite.kernel.points import columns_for, plane, sobol_normal
from cerewrite.kernel.units import Array, GaussianTerm, Norm, Tangent, Unit, without_shared_part

_STEP_SCALE = 0.1
_STEP_SHIFT = 0.05
_BENT = 1e-3
_COARSE = (32, 21)


@dataclass(frozen=True, slots=True)
class UnitMoments:
    """Expectations over a unit y, and their derivatives (docs/theory.md, eqs. 43 to 45).

    Derivatives are by the terms' relative variances, then per norm by its relative energy and
    its mean.

    Attributes:
        square, mean: E[y^2] and E[y].
        slopes: E[(dy/dterm)^2] per term, with terms in units of their deviations.
        first: E[y z] per term z of unit variance.
        by_square, by_mean: derivatives of the first two by the parameters.
        by_slopes: of the slopes, ``[parameters, terms]``.
        bend_square, bend_slopes: second derivatives of the logarithms of E[y^2] and of the slopes
            by the logarithm of all terms' variances together; 0 behind norms.
        table: those logarithms over that one (`curves`); None where second derivatives suffice.
    """

    square: float
    mean: float
    slopes: Array
    first: Array
    by_square: Array
    by_mean: Array
    by_slopes: Array
    bend_square: float
    bend_slopes: Array
    table: Array | None


class Sampler:
    """Integrals over units; each is computed once.

    Args:
        points: low-discrepancy points for units of three and more terms.
    """

    def __init__(self, points: int) -> None:
        self._points = points
        self._columns: dict[GaussianTerm, int] = {}
        self._memo: dict[Any, tuple[Array, dict[GaussianTerm, Tangent]]] = {}
        self._senses: dict[Any, UnitMoments] = {}
        self._known: dict[Unit, UnitMoments] = {}
        self._varying: dict[Unit, Unit] = {}
        self._cloud: Any = None
        self._twins: dict[Any, tuple[Unit, Any]] = {}
        self._asked: list[UnitMoments] = []

    def replay(self) -> Sampler:
        """A sampler that answers the same questions in the same order from memory."""
        return _Memory(self._asked)

    def space(self, terms: tuple[GaussianTerm, ...]) -> Space:
        """The points for some terms."""
        noisy = [term for term in terms if term.deviation > 0]
        if len(noisy) <= 1:
            nodes, weights = gaussian_grid()
            return Space(tuple(noisy), weights, dict.fromkeys(noisy, nodes))
        if len(noisy) == 2:
            across, down, weights = plane()
            return Space(tuple(noisy), weights, dict(zip(noisy, (across, down), strict=True)))
        for term in noisy:
            self._columns.setdefault(term, len(self._columns))
        columns = columns_for(len(self._columns))
        points = max(self._points, 1 << (2 * columns - 1).bit_length())
        normal = sobol_normal(points, columns)
        name = ("cloud", normal.shape)
        if name != self._cloud:
            self._memo = {key: kept for key, kept in self._memo.items() if key[1] != self._cloud}
            self._cloud = name
        weights = np.full(points, 1.0 / points)
        return Space(name, weights, {term: normal[self._columns[term]] for term in noisy})

    def values(
        self, unit: Unit, space: Space, moved: tuple[Norm, float, float] | None = None
    ) -> tuple[Array, dict[GaussianTerm, Tangent]]:
        """A unit's value at every point and its derivatives by the terms.

        Args:
            unit: the unit.
            space: the points.
            moved: a norm, the factor on its scale and the shift of its mean, for differences.
        """
        line = moved is None and len(space.noise) == 1
        known = line and (unit, space.name) not in self._memo and self._alike(unit, space)
        stack = [] if known else [unit]
        while stack:
            node = stack[-1]
            key = _memo_key(node, space, moved)
            if key in self._memo:
                stack.pop()
                continue
            missing = [u for u in node.inputs if _memo_key(u, space, moved) not in self._memo]
            if missing:
                stack += missing
                continue
            inputs = [self._memo[_memo_key(u, space, moved)] for u in node.inputs]
            self._memo[key] = evaluate_node(node, inputs, space, moved)
            stack.pop()
        return self._memo[_memo_key(unit, space, moved)]

    def _alike(self, unit: Unit, space: Space) -> bool:
        """Whether a unit's values on a line are those of one that has been asked for; kept then."""
        twin, line = self._twins.setdefault(_signature(unit, unit), (unit, space.name))
        if twin is unit or (twin, line) not in self._memo:
            return False
        value, slopes = self._memo[twin, line]
        named = dict(zip(twin.terms, unit.terms, strict=True))
        self._memo[unit, space.name] = value, {named[term]: by for term, by in slopes.items()}
        return True

    def varying(self, unit: Unit) -> Unit:
        """A unit less what all examples of a batch have in common; one for each unit."""
        return without_shared_part(unit, self._varying)

    def sense(self, unit: Unit) -> UnitMoments:
        """Expectations over a unit and their derivatives."""
        if unit not in self._known:
            single = sum(term.deviation > 0 for term in unit.terms) <= 2
            key = _signature(unit, unit) if single else unit
            if key not in self._senses:
                self._senses[key] = self._sense(unit)
            self._known[unit] = self._senses[key]
        self._asked.append(self._known[unit])
        return self._asked[-1]

    def _sense(self, unit: Unit) -> UnitMoments:
        space = self.space(unit.terms)
        values = self.values(unit, space)
        noisy = [term for term in unit.terms if term in space.noise]
        noise = np.zeros((len(noisy), len(space.weights)))
        for row, term in enumerate(noisy):
            noise[row] = space.noise[term]
        over = on_grid(len(noisy)) if len(noisy) <= 2 else densities(space.weights, noise)
        # E[y^2], E[y], E[slope^2] (eq. 43), then their derivatives by each variance (eq. 44)
        rows = iter(averages(*values, unit.terms, over))
        base = next(rows)
        moves = [next(rows) if term in space.noise else np.zeros_like(base) for term in unit.terms]
        # second derivatives by all variances together (eq. 45)
        bends = not unit.norms and 1 <= len(noisy) <= 2
        bent = log_curvature(base, *rows) if bends else np.zeros_like(base)
        # a norm's energy and mean (section 19, eq. 56): central differences
        for norm in unit.norms:
            for scale, shift in ((_STEP_SCALE, 0.0), (0.0, _STEP_SHIFT)):
                low, high = (
                    self._expect(unit, space, (norm, math.exp(-s * scale / 2), s * shift))
                    for s in (-1, 1)
                )
                moves.append((high - low) / (2 * (scale + shift)))
        rates = np.array(moves).reshape(len(moves), -1)
        # E[y zeta] per term of unit variance
        projected = dict(zip(noisy, noise @ (space.weights * values[0]), strict=True))
        first = np.array([projected.get(term, 0.0) for term in unit.terms])
        return UnitMoments(
            base[0],
            base[1],
            base[2:],
            first,
            rates[:, 0],
            rates[:, 1],
            rates[:, 2:],
            bent[0],
            bent[2:],
            self._table(unit, space, bent),
        )

    def _table(self, unit: Unit, space: Space, log_curvature: Array) -> Array | None:
        """E[y^2] and the slopes over the scale of all terms (`curves`), on fewer points."""
        if not (np.abs(np.delete(log_curvature, 1)) > _BENT).any():
            return None
        every = slice(None, None, _COARSE[len(space.noise) - 1])
        weights = space.weights[every] / space.weights[every].sum()
        factors = np.exp(STEPS / 2)
        noise = {term: np.outer(factors, z[every]).ravel() for term, z in space.noise.items()}
        wide = Space("scaled", np.tile(weights, len(factors)), noise)
        value, tangents = Sampler(0).values(unit, wide)
        rows = [value, *(tangents.get(term, 0.0) for term in unit.terms)]
        squares = [np.broadcast_to(row, value.shape).reshape(len(factors), -1) ** 2 for row in rows]
        return tabled(np.stack([square @ weights for square in squares], 1))

    def _expect(self, unit: Unit, space: Space, moved: tuple[Norm, float, float] | None) -> Array:
        """E[y^2], E[y], then E[slope^2] per term."""
        expectations: Array
        values = self.values(unit, space, moved)
        (expectations,) = averages(*values, unit.terms, space.weights[None])
        return expectations


class _Memory(Sampler):
    def __init__(self, answers: list[UnitMoments]) -> None:
        super().__init__(0)
        self._answers = iter(answers)

    def sense(self, unit: Unit) -> UnitMoments:
        return next(self._answers)


def _memo_key(unit: Unit, space: Space, moved: tuple[Norm, float, float] | None) -> Any:
    if moved is None or moved[0] not in unit.norms:
        return unit, space.name
    return unit, space.name, moved


def _signature(unit: Unit, root: Unit) -> Any:
    """What a unit computes, up to the names of its terms and norms."""
    inner = tuple(_signature(u, root) for u in unit.inputs)
    if unit.term is not None:
        term = unit.term
        return "term", root.terms.index(term), f"{term.mean:.12e} {term.deviation:.12e}"
    if unit.norm is not None:
        norm = unit.norm
        if not norm.read and (read := unit.inputs[0].term) is not None:
            size = read.deviation or 1.0
            offset = round((read.mean - norm.mean) / size, 9) + 0.0  # no rounding, no -0
            numbers = f"{offset:.9f} {norm.scale * size:.9e}"
            return "normed", root.terms.index(read), numbers
        if not norm.read:
            return "norm", f"{norm.mean:.12e} {norm.scale:.12e}", inner
        numbers = f"{norm.mean:.12e} {norm.scale:.12e} {norm.deviation:.12e}"
        return "norm", root.norms.index(norm), numbers, inner
    return unit.kind, unit.key, inner
