"""``model.safetensors``: a state dict without pickle, tied tensors stored once."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from cerewrite import ir
from cerewrite.errors import CerewriteError, OutputError, PlanError
from cerewrite.output.names import WEIGHTS
from cerewrite.runtime.reading import open_regular

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SHOWN = 3
FLOATS = ("F16", "BF16", "F32", "F64")
NAMES = {
    "bool": "BOOL",
    "complex64": "C64",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
"""How safetensors calls the types that a tensor keeps."""
SCHEMA = 1


def save_weights(model: nn.Module, folder: Path, *, fingerprint: str) -> None:
    """Write a model's parameters and buffers; of tied ones, the first name alone.

    Args:
        model: the model, on any device with real weights.
        folder: where to.
        fingerprint: fingerprint of the original, kept in the file's metadata.

    Raises:
        OutputError: if the state dict holds something else than tensors with values.
    """
    import torch
    from safetensors.torch import save_file

    state = model.state_dict(keep_vars=True)
    tensors: dict[str, Tensor] = {}
    for name in (names[0] for names in _tied(state)):
        value = state[name].detach()
        if value.is_meta or value.layout is not torch.strided:
            raise OutputError(
                f"{name}: is on the meta device or not dense, so it has no values to save",
                advice="give real weights (model.to_empty(device='cpu')), or convert without --out",
            )
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        value = value.cpu().contiguous()
        tensors[name] = value if whole else value.clone()
    meta = {"cerewrite": json.dumps({"fingerprint": fingerprint, "schema": SCHEMA})}
    path = folder / WEIGHTS
    path.touch()  # gives the file the usual permissions; safetensors would keep it private
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, metadata=meta)
    except SafetensorError as error:
        raise OutputError(
            f"{path.name}: cannot be written: {error}", advice="make room on the disk"
        ) from error
    path.chmod(mode)


def _tied(state: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of the state dict, those of one tensor together, in order of first appearance."""
    from torch import Tensor

    groups: dict[int, list[str]] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise OutputError(
                f"{name}: is a {type(value).__name__}, which safetensors cannot hold",
                advice="keep the module's extra state out of its state dict",
            )
        groups.setdefault(id(value), []).append(name)
    return list(groups.values())


def load_weights(model: nn.Module, folder: Path, *, fingerprint: str | None = None) -> None:
    """Read a model's parameters and buffers back; nothing is changed unless all of it fits.

    They keep the type that they were saved in.

    Args:
        model: the model, rewritten as it was when it was saved.
        folder: the folder with the file.
        fingerprint: fingerprint of the original; a file that records another one is refused.

    Raises:
        OutputError: if the file is missing, damaged, newer, or belongs to another model.
    """
    path = folder / WEIGHTS
    if not os.path.lexists(path):
        raise OutputError(
            f"{path}: no such file", advice="name a folder that `cerewrite convert --out` wrote"
        )
    os.close(open_regular(path))
    groups = _tied(model.state_dict(keep_vars=True))
    with _opened(path) as file:
        _require_ours(file.metadata() or {}, path, fingerprint)
        held = set(file.keys())
        given = {
            name: source
            for names in groups
            if (source := next((name for name in names if name in held), None)) is not None
            for name in names
        }
        _require_fit(model, file, held, given, path)
        read = {source: file.get_tensor(source) for source in dict.fromkeys(given.values())}
    state = {name: read[source] for name, source in given.items()}
    for name, value in model.state_dict(keep_vars=True).items():
        if value.dtype != state[name].dtype:
            value.data = value.data.to(state[name].dtype)
    model.load_state_dict(state)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, its header read and held against its length."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except CerewriteError:
        raise
    except Exception as error:  # whatever safetensors and torch make of a file that is broken
        raise OutputError(
            f"{path}: not a whole safetensors file: {error}",
            advice="copy the folder again, or convert again",
        ) from None


def _require_ours(meta: Mapping[str, str], path: Path, fingerprint: str | None) -> None:
    """Refuse what a newer version, or another model, wrote; a trainer's own file says nothing."""
    try:
        record = ir.parse(meta.get("cerewrite", "{}"), str(path))
    except PlanError as error:
        raise OutputError(error.message, advice="convert again") from None
    if not isinstance(record, dict):
        return
    schema, found = record.get("schema", SCHEMA), record.get("fingerprint", fingerprint)
    if isinstance(schema, int) and schema > SCHEMA:
        raise OutputError(
            f"{path}: has schema {schema}, this version reads up to {SCHEMA}",
            advice="upgrade cerewrite, or convert again with this version",
        )
    if fingerprint is not None and found != fingerprint:
        raise OutputError(
            f"{path}: weights of another model: their original's fingerprint is "
            f"{str(found)[:12]}, the plan's {fingerprint[:12]}",
            advice="load the weights that were saved with this plan",
        )


def _require_fit(
    model: nn.Module, file: Any, held: Collection[str], given: Mapping[str, str], path: Path
) -> None:
    """Compare names, shapes and types with the header alone; no tensor is read yet."""
    wanted = model.state_dict()
    wrong = [f"{name} is missing" for name in wanted if name not in given]
    wrong += [f"{name} is unknown" for name in sorted(held) if name not in wanted]
    for name, source in given.items():
        header = file.get_slice(source)
        shape, kind = [*header.get_shape()], header.get_dtype()
        if shape != [*wanted[name].shape]:
            wrong.append(f"{name} is {shape} instead of {[*wanted[name].shape]}")
        elif not _exchangeable(wanted[name].dtype, kind):
            wrong.append(f"{name} is {kind} instead of {wanted[name].dtype}")
    if wrong:
        more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise OutputError(
            f"{path}: weights of another model: {', '.join(wrong[:SHOWN])}{more}",
            advice="load the weights that were saved with this plan",
        )


def _exchangeable(wanted: torch.dtype, stored: str) -> bool:
    """Whether a tensor may be stored so: floats in any width, everything else in its own type."""
    if wanted.is_floating_point and not wanted.is_complex:
        return stored in FLOATS
    return stored == NAMES.get(str(wanted).removeprefix("torch."), "")
