"""What the records derive: fan-in, parameters, costs, graphs, coefficients."""

from __future__ import annotations

import dataclasses

import pytest

from cerewrite import ir

CONV = ir.Layer(
    name="conv",
    op="conv",
    node="conv2d",
    sources=("a",),
    target="b",
    in_channels=16,
    out_channels=32,
    groups=4,
    kernel=9,
    positions=49,
    bias=True,
    gain=2.0,
    bias_variance=0.0,
    frontend="export",
)


def test_layer_counts() -> None:
    import torch

    module = torch.nn.Conv2d(16, 32, 3, groups=4)
    assert CONV.fan_in == module.weight[0].numel()
    assert CONV.params == sum(parameter.numel() for parameter in module.parameters())
    assert CONV.flops == 2 * module.weight.numel() * 49


def test_graphs_of_a_traced_model() -> None:
    widths = tuple(ir.WidthClass(name, 16, (), (), (), (), ()) for name in "ab")
    ops = (
        ir.Op("x", "input", (), (2, 16, 7, 7)),
        ir.Op("conv2d", "conv2d", ("x",), (2, 32, 7, 7), module="conv"),
    )
    readout = dataclasses.replace(CONV, name="readout", target=None)
    traced = ir.TracedModel(ops, (CONV, readout), widths, (), 1, "f", "export", "Net", 2)
    assert list(traced.width_graph().edges(keys=True)) == [("a", "b", "conv")]
    assert traced.flops == 2 * CONV.flops
    assert ops[1].numel == 2 * 32 * 49


def test_site_coefficient_is_the_closed_form_of_a_relu_chain() -> None:
    up = 0.25
    site = ir.Site("fc", 0, up, 1 - up, 5.0, 5.0, 1.0)
    assert site.coefficient == pytest.approx(5 - 8 * up * (1 - up))


def test_region_widths_are_those_of_one_member() -> None:
    region = ir.Region("r", "block", ("a", "b"), (32, 64), 4, (), ())
    assert region.widths == (8, 16)


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONV.groups = 1  # type: ignore[misc]


def test_verification_keeps_all_results() -> None:
    good, bad = ir.Check("a", True, "fine"), ir.Check("b", False, "wrong")
    assert ir.Verification((good,)).passed
    both = ir.Verification((good, bad))
    assert not both.passed
    assert both.failures == (bad,)


def test_parity_passes_at_its_limit() -> None:
    assert ir.Parity(2, 1e-5, 1e-5).passed
    assert not ir.Parity(2, float("nan"), 1e-5).passed
