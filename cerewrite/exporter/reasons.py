"""Why an exporter failed, in few words."""

from __future__ import annotations

import re


def reason(error: BaseException, limit: int = 400) -> str:
    r"""The root cause of an exporter's failure in one paragraph, without colours and graphs.

    Example:
        >>> reason(RuntimeError("no such thing\n\nFor more, run with TORCH_LOGS=dynamic"))
        'RuntimeError: no such thing'
    """
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(root)).strip()
    paragraph = " ".join(text.split("\n\n")[0].split())
    if len(paragraph) > limit:
        paragraph = paragraph[:limit].rsplit(" ", 1)[0] + " ..."
    called = re.search(r"raised this error:\s*File \"(.*)\", line (\d+), in \w+\n\s*(.*)", text)
    where = f" (at {called[1]}:{called[2]}: {called[3]})" if called else ""
    return f"{type(root).__name__}: {paragraph}{where}" if paragraph else type(root).__name__
