"""Contexts that leave nothing behind: a module in evaluation mode, an exporter that is silent."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run ``model`` in evaluation mode without gradients and put everything back after.

    Restored are the training flag of every submodule, every buffer that a forward call changed
    or replaced, the random state, and the switch of attention's fast path (which would hide the
    matrix products from the exporter).
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module, training in flags:
            module.training = training
        for module, name, buffer, kept in buffers:
            if not torch.equal(buffer, kept):
                with torch.no_grad():
                    buffer.copy_(kept)
            if getattr(module, name) is not buffer:
                setattr(module, name, buffer)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Swallow what torch.onnx prints, logs and warns (on failure it prints a whole graph)."""
    before = logging.root.manager.disable
    sink = io.StringIO()
    try:
        logging.disable(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


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
