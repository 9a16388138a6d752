"""Which of a model's outputs the tangent kernel is of: all that a layer of their own leads to."""

from __future__ import annotations

from cerewrite.ir import TracedModel


def counted_outputs(traced: TracedModel) -> tuple[int, ...]:
    """Places, among the floating outputs, of the first and of those that reach further layers.

    The scalar that is read is ``f = sum_o v_o . output_o`` over these. Heads of their own are
    independent at initialisation, so that ``E[K]`` is the sum of their kernels; without them, a
    head's widths would have no correction at all. An output that only shows what leads to another
    one (features, caches of keys and values, the input itself) adds none.
    """
    ops = {op.name: op for op in traced.ops}
    layers = {node for layer in traced.layers for node in layer.nodes}
    seen: set[str] = set()
    counted: list[int] = []
    for place, name in enumerate(_floating(traced)):
        stack, fresh = [name], False
        while stack:
            current = stack.pop()
            if current not in seen:
                seen.add(current)
                fresh |= current in layers
                stack += ops[current].inputs
        if fresh or place == 0:
            counted.append(place)
    return tuple(counted)


def counted_names(traced: TracedModel) -> tuple[str, ...]:
    """Names of the operators that make them."""
    floating = _floating(traced)
    return tuple(floating[place] for place in counted_outputs(traced))


def _floating(traced: TracedModel) -> list[str]:
    """The outputs that are no whole numbers; all of them where they all are."""
    ops = {op.name: op for op in traced.ops}
    ends = [name for op in traced.ops if op.target == "output" for name in op.inputs]
    return [name for name in ends if not ops[name].is_integral] or ends[:1]
