"""Files that anyone may have written, read without trusting what they are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cerewrite.errors import OutputError

LARGEST_RECORD = 64 << 20
"""Bytes of a plan or report; ResNet-50's report has one percent of it."""


def open_regular(path: Path) -> int:
    """A descriptor of a regular file; a pipe, a device or a folder is refused, not waited for.

    Raises:
        OutputError: if there is no such file, or it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise unreadable(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, getattr(error, "strerror", None) or str(error)) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise unreadable(path, "not a regular file")
    return handle


def read_text(path: Path, *, most: int = LARGEST_RECORD) -> str:
    """The text of a regular file of at most that many bytes.

    Raises:
        OutputError: if it is none, or no UTF-8.
    """
    with open(open_regular(path), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise unreadable(path, f"larger than {most >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise unreadable(path, "not UTF-8 text") from None


def unreadable(path: Path, reason: str) -> OutputError:
    """The refusal of a file that cannot be read."""
    return OutputError(
        f"{path}: cannot be read: {reason}", advice="check the path, or write the file again"
    )
