"""Checkpoints of a run: one safetensors file, its progress as JSON in the header, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cerewrite.errors import CerewriteError, TrainingError
from cerewrite.output.drafts import draft_folder
from cerewrite.runtime.fingerprint import fingerprint
from cerewrite.runtime.reading import open_regular

SCHEMA = 1
PARTS = ("student", "best")
"""States that a checkpoint holds which does not say."""

State = dict[str, Tensor]


@dataclass(slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        epoch: epochs finished.
        step: optimiser steps taken.
        losses: mean training loss per epoch.
        scores: what early stopping looks at, per epoch: validation loss, or training loss.
        best: index of the best score; -1 before there is one.
        stopped: why the run has ended; "" while it has not.
    """

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: int = -1
    stopped: str = ""


def identity(student: nn.Module, teacher: nn.Module, **settings: Any) -> dict[str, Any]:
    """What makes two runs the same: structures, the teacher's weights, settings."""
    digest = hashlib.sha256()
    for name, tensor in sorted(teacher.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(name.encode() + flat.numpy().tobytes())
    return {
        "student": fingerprint(student),
        "teacher": fingerprint(teacher),
        "teacher weights": digest.hexdigest(),
        **settings,
    }


def copy_state(model: nn.Module) -> State:
    """An own copy of a model's state, on its device."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def save_checkpoint(
    path: Path,
    run: Mapping[str, Any],
    progress: Progress,
    states: Mapping[str, State],
    optimiser: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint, whole or not at all; an earlier one is replaced in one step.

    Raises:
        TrainingError: if it cannot be written, or the optimiser's state is not plain.
    """
    tensors = {f"{part}.{name}": v for part, state in states.items() for name, v in state.items()}
    held = optimiser.state_dict()
    numbers: dict[str, Any] = {}
    for index, slots in held["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value.detach()
            else:
                numbers[f"{index}.{name}"] = value
    note = {
        "schema": SCHEMA,
        "run": dict(run),
        "progress": asdict(progress),
        "numbers": numbers,
        "groups": held["param_groups"],
        "parts": list(states),
    }
    try:
        text = json.dumps(note)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"the state of {type(optimiser).__name__} holds more than tensors and numbers: {error}",
            advice="use another optimiser, or no checkpoint",
        ) from None
    plain = {name: v.detach().cpu().contiguous().clone() for name, v in tensors.items()}
    _replace(path, plain, text)


def _replace(path: Path, tensors: State, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(path) as folder:
            draft = folder / path.name
            save_file(tensors, draft, metadata={"cerewrite": text})
            with open(draft, "rb") as file:
                os.fsync(file.fileno())
            os.replace(draft, path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: the checkpoint cannot be written: {error}",
            advice="check the path, its permissions and the space left on the disk",
        ) from error


def load_checkpoint(
    path: Path, run: Mapping[str, Any], optimiser: torch.optim.Optimizer, student: nn.Module
) -> tuple[Progress, dict[str, State]]:
    """Read a checkpoint of the same run, and put the optimiser's state back.

    Raises:
        TrainingError: if the file is damaged or belongs to another run; nothing is changed then.
    """
    try:
        os.close(open_regular(path))
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {})["cerewrite"])
            _require_same(path, run, note)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress = msgspec.convert(note["progress"], Progress)
        states, slots = _divided(tensors, note["numbers"], note.get("parts", PARTS))
        _require_fit(states, student)
        optimiser.load_state_dict({"state": slots, "param_groups": note["groups"]})
    except TrainingError:
        raise
    except Exception as error:  # whatever JSON, safetensors and torch make of a broken file
        text = error.message if isinstance(error, CerewriteError) else str(error)
        raise TrainingError(
            f"{path}: not a whole checkpoint: {text[:300]}",
            advice="name another file, or delete this one to start afresh",
        ) from None
    return progress, states


def _require_same(path: Path, run: Mapping[str, Any], note: Mapping[str, Any]) -> None:
    theirs = note["run"]
    differing = [key for key in {**run, **theirs} if run.get(key) != theirs.get(key)]
    if differing or note.get("schema") != SCHEMA:
        raise TrainingError(
            f"{path}: is a checkpoint of another run: {', '.join(differing) or 'schema'} differ",
            advice="resume with the models and settings it was written with, or name another file",
        )


def _divided(
    tensors: State, numbers: Mapping[str, Any], parts: Sequence[str]
) -> tuple[dict[str, State], dict[int, dict[str, Any]]]:
    """The models' states, and the optimiser's by parameter."""
    states: dict[str, State] = {part: {} for part in parts}
    slots: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part in states:
            states[part][rest] = value
        else:
            index, _, key = rest.partition(".")
            slots.setdefault(int(index), {})[key] = value
    for name, number in numbers.items():
        index, _, key = name.partition(".")
        slots.setdefault(int(index), {})[key] = number
    return states, slots


def _require_fit(states: Mapping[str, State], student: nn.Module) -> None:
    wanted = {name: value.shape for name, value in student.state_dict().items()}
    for part, state in states.items():
        if {name: value.shape for name, value in state.items()} != wanted:
            raise ValueError(f"the state '{part}' has not the names and shapes of the student's")
