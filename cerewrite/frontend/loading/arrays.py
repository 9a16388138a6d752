"""Inputs from NumPy files: data alone, no pickle, and no more of it than a file can hold."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cerewrite.errors import LoadError, OutputError, first_line
from cerewrite.ir.inputs import Inputs
from cerewrite.runtime.reading import open_regular

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 2 << 30
"""Bytes of values that a file of inputs may claim, in all."""

MEMBERS = 1000
"""Arrays that an archive may hold."""

_POSITIONAL = re.compile(r"arr_[0-9]{1,4}")


def read_inputs(path: str | os.PathLike[str]) -> Inputs:
    """A batch of inputs from ``.npy`` (one tensor) or ``.npz`` (several).

    Args:
        path: the file, of at most 2 GiB of values. Arrays that were saved without a name are
            positional inputs, others are keyword inputs. Floating-point arrays become float32.

    Raises:
        LoadError: if the file cannot be read, claims more than it holds or than 2 GiB, or holds
            something else than real numbers.
    """
    try:
        with open(open_regular(Path(path)), "rb") as file:
            if zipfile.is_zipfile(file):
                return _arguments(dict(_members(file)))
            return (_tensor(_mapped(Path(path))),)
    except OutputError as error:
        raise _refusal(path, error.message.removeprefix(f"{path}: ")) from None
    except Exception as error:  # whatever zipfile, zlib and numpy make of a file that is broken
        raise _refusal(path, first_line(error)) from None


def _refusal(path: object, reason: str) -> LoadError:
    return LoadError(
        f"{path}: no inputs can be read: {reason[:300]}",
        advice="write one array with numpy.save, or several with numpy.savez",
    )


def _mapped(path: Path) -> Any:
    """An array as it lies on the disk: a header that claims more than the file is refused."""
    array = _loaded(path, mmap_mode="r")
    _require_size(array.nbytes)
    return array


def _members(file: Any) -> Iterator[tuple[str, Tensor]]:
    """The arrays of an archive; none is unpacked before all of them are known to fit."""
    with zipfile.ZipFile(file) as archive:
        items = archive.infolist()
        if len(items) > MEMBERS or len({item.filename for item in items}) < len(items):
            raise ValueError(f"holds {len(items)} members, more than {MEMBERS} or one twice")
        _require_size(sum(item.file_size for item in items))
        for item in items:
            with archive.open(item) as member:
                data = io.BytesIO(member.read(LARGEST))
            array = _loaded(data)
            yield item.filename.removesuffix(".npy"), _tensor(array)


def _loaded(file: Any, **options: Any) -> Any:
    import numpy as np

    with np.errstate(all="ignore"):  # numpy multiplies the sizes that a header claims
        return np.load(file, allow_pickle=False, **options)


def _require_size(size: int) -> None:
    if size > LARGEST:
        raise ValueError(f"claims {size:,} bytes of values, more than {LARGEST:,}")


def _tensor(array: Any) -> Tensor:
    import numpy as np
    import torch

    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ValueError(f"holds {array.dtype}, not real numbers of at most 64 bits")
    found = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    return found.float() if found.is_floating_point() else found


def _arguments(named: dict[str, Tensor]) -> tuple[Tensor, ...] | dict[str, Tensor]:
    if not named:
        raise ValueError("holds no array")
    if all(_POSITIONAL.fullmatch(name) for name in named):
        wanted = [f"arr_{index}" for index in range(len(named))]
        if set(wanted) != set(named):
            raise ValueError(f"holds {', '.join(sorted(named)[:5])}, not {wanted[0]} and so on")
        return tuple(named[name] for name in wanted)
    wrong = next((name for name in named if not name.isidentifier()), None)
    if wrong is not None:
        raise ValueError(f"'{wrong[:40]}' is no name of a keyword")
    return named
