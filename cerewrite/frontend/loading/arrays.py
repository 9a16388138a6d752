"""Inputs from NumPy files: data alone, no pickle."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from cerewrite.errors import LoadError
from cerewrite.ir.inputs import Inputs

_POSITIONAL = re.compile(r"arr_\d+")


def read_inputs(path: str | os.PathLike[str]) -> Inputs:
    """A batch of inputs from ``.npy`` (one tensor) or ``.npz`` (several).

    Args:
        path: the file. Arrays that were saved without a name are positional inputs, others are
            keyword inputs. Floating-point arrays become float32.

    Raises:
        LoadError: if the file cannot be read or holds something else than numbers.
    """
    import numpy as np
    import torch

    def tensor(array: Any) -> torch.Tensor:
        found: torch.Tensor = torch.from_numpy(np.ascontiguousarray(array))
        return found.float() if found.is_floating_point() else found

    try:
        held = np.load(Path(path), allow_pickle=False)
        if isinstance(held, np.ndarray):
            return (tensor(held),)
        with held:
            named = {name: tensor(held[name]) for name in held.files}
    except (OSError, ValueError, TypeError, EOFError, KeyError) as error:
        raise LoadError(
            f"{path}: no inputs can be read: {error}",
            advice="write one array with numpy.save, or several with numpy.savez",
        ) from None
    if all(_POSITIONAL.fullmatch(name) for name in named):
        return tuple(named[f"arr_{index}"] for index in range(len(named)))
    return named
