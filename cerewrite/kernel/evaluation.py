"""Value and slopes of one node of a unit at every point (docs/theory.md, section 15)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cerewrite.kernel.activation import evaluate
from cerewrite.kernel.batch import on_sphere, steepness
from cerewrite.kernel.units import Array, GaussianTerm, Norm, Tangent, Unit


@dataclass(frozen=True, slots=True)
class Space:
    """Points of independent standard normal variables.

    Attributes:
        name: spaces of one name share their points.
        weights: weight of each point, sum 1.
        noise: the variable of each term at every point; terms without deviation have none.
    """

    name: Any
    weights: Array
    noise: dict[GaussianTerm, Array]


def evaluate_node(
    unit: Unit,
    inputs: list[tuple[Array, dict[GaussianTerm, Tangent]]],
    space: Space,
    moved: tuple[Norm, float, float] | None,
) -> tuple[Array, dict[GaussianTerm, Tangent]]:
    """One node from its operands, with tangents by the product and chain rules."""
    match unit.kind:
        case "term":
            term = unit.term
            assert term is not None
            noise = space.noise.get(term)
            flat = np.full(len(space.weights), term.mean)
            if noise is None:
                return flat, {term: 1.0}
            return term.mean + term.deviation * noise, {term: term.deviation}
        case "apply":
            value, slope = evaluate(unit.function, inputs[0][0])
            return value, _scaled(inputs[0][1], slope)
        case "norm":
            norm = unit.norm
            assert norm is not None
            factor, shift = moved[1:] if moved is not None and moved[0] is norm else (1.0, 0.0)
            scale = norm.scale * factor
            value = (inputs[0][0] - norm.mean - shift * norm.deviation) * scale
            return value, _scaled(inputs[0][1], scale)
        case "batch":
            effective_batch_size, scale = unit.key
            value = on_sphere(inputs[0][0], effective_batch_size)
            return value * scale, _scaled(
                inputs[0][1], scale * steepness(value, effective_batch_size)
            )
        case "add":
            (first, by_first), (second, by_second) = inputs
            return first + second, _sum(by_first, by_second)
        case "multiply":
            (first, by_first), (second, by_second) = inputs
            return first * second, _sum(_scaled(by_first, second), _scaled(by_second, first))
    raise AssertionError(f"no such unit: {unit.kind}")


def _scaled(tangents: dict[GaussianTerm, Tangent], by: Tangent) -> dict[GaussianTerm, Tangent]:
    """Every tangent times one factor; equal tangents stay one object."""
    done: dict[int, Tangent] = {id(t): t * by for t in tangents.values()}
    return {term: done[id(t)] for term, t in tangents.items()}


def _sum(
    first: dict[GaussianTerm, Tangent], second: dict[GaussianTerm, Tangent]
) -> dict[GaussianTerm, Tangent]:
    both = {term: first[term] + second[term] for term in first if term in second}
    return {**first, **second, **both}
