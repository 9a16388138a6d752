"""Weights of another original, of a newer version, and in half precision."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import cerewrite
from cerewrite import ir, output
from cerewrite.api import saving
from cerewrite.errors import OutputError, PlanError, RewriteError
from tests.models import chain


def stamped(folder: Path, record: object) -> None:
    tensors = load_file(folder / output.WEIGHTS)
    save_file(tensors, folder / output.WEIGHTS, metadata={"cerewrite": json.dumps(record)})


def test_a_newer_schema_and_another_fingerprint(tmp_path: Path) -> None:
    output.save_weights(nn.Linear(2, 2), tmp_path, fingerprint="f")
    output.load_weights(nn.Linear(2, 2), tmp_path, fingerprint="f")
    with pytest.raises(OutputError, match="fingerprint is f, the plan's g"):
        output.load_weights(nn.Linear(2, 2), tmp_path, fingerprint="g")
    stamped(tmp_path, {"fingerprint": "f", "schema": 9})
    with pytest.raises(OutputError, match="has schema 9, this version reads up to"):
        output.load_weights(nn.Linear(2, 2), tmp_path, fingerprint="f")


def test_a_trainers_own_file_is_read(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    save_file(dict(model.state_dict()), tmp_path / output.WEIGHTS)
    other = nn.Linear(2, 2)
    output.load_weights(other, tmp_path, fingerprint="f")
    assert torch.equal(other.weight, model.weight)
    stamped(tmp_path, ["not", "ours"])
    output.load_weights(other, tmp_path, fingerprint="f")


def test_half_precision_stays_half(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).half()
    output.save_weights(model, tmp_path, fingerprint="f")
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    output.load_weights(other, tmp_path)
    assert {name: value.dtype for name, value in other.state_dict().items()} == {
        name: value.dtype for name, value in model.state_dict().items()
    }
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))  # noqa: B905


def converted(out: Path) -> tuple[nn.Module, cerewrite.Conversion]:
    torch.manual_seed(0)
    net = chain([32, 32, 32], inputs=7, outputs=3, bias=True)
    return net, cerewrite.convert(net, torch.ones(2, 7), out=out, estimator="analytic")


def test_the_plan_maps_old_names_to_new_ones(tmp_path: Path) -> None:
    net, conversion = converted(tmp_path / "out")
    plan = saving.read_plan(tmp_path / "out")
    assert plan.renamed == conversion.renamed == conversion.plan.renamed
    old, new = dict(net.named_parameters()), dict(conversion.model.named_parameters())
    assert plan.renamed
    for before, after in plan.renamed:
        assert before in old
        assert after in new or after == ""
    untouched = new.keys() - {after for _, after in plan.renamed}
    assert all(torch.equal(new[name], old[name]) for name in untouched)


def test_a_checkpoint_of_training_loads_into_a_fresh_rewrite(tmp_path: Path) -> None:
    net, conversion = converted(tmp_path / "out")
    model, plan = conversion.model, saving.read_plan(tmp_path / "out")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(8, 7)).square().mean().backward()
        optimiser.step()
    torch.save(model.state_dict(), tmp_path / "checkpoint.pt")
    fresh = cerewrite.apply(plan, chain([32, 32, 32], inputs=7, outputs=3, bias=True))
    fresh.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    rows = torch.randn(5, 7)
    assert torch.equal(fresh(rows), model(rows))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    back = cerewrite.revert(model).state_dict()
    assert all(torch.equal(before[name], value) for name, value in back.items())


def test_a_plan_that_names_layers_that_are_not_there(tmp_path: Path) -> None:
    net, conversion = converted(tmp_path / "out")
    path = tmp_path / "out" / output.PLAN
    path.write_text(path.read_text().replace('"name": "2"', '"name": "gone"'))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises((PlanError, RewriteError), match="gone"):
        cerewrite.load(tmp_path / "out", net, inplace=True)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    newer = dataclasses.replace(conversion.plan, schema=ir.SCHEMA + 1)
    path.write_text(ir.dumps(newer))
    with pytest.raises(PlanError, match="this version reads up to"):
        cerewrite.load(tmp_path / "out", net)
