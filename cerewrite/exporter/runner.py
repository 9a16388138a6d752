"""An exported file in ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from cerewrite.errors import ExportError
from cerewrite.exporter.inputs import ExampleInputs
from cerewrite.exporter.reasons import reason
from cerewrite.ir.inputs import Inputs

Array = NDArray[Any]


class Runner:
    """An ONNX file in ONNX Runtime on the CPU, with as many threads as torch has.

    Args:
        path: the file.

    Raises:
        ExportError: if the runtime refuses the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ExportError(
                f"ONNX Runtime {onnxruntime.__version__} refuses {Path(path).name}: "
                f"{reason(error)}",
                advice="export in float32 (model.float()), at a lower opset, or update onnxruntime",
            ) from error

    def feed(self, example: ExampleInputs, arguments: Inputs, what: str) -> dict[str, Array]:
        """A model's arguments as the file's inputs, by name.

        Args:
            example: the model's example, for the names.
            arguments: the arguments.
            what: what is run, for messages.

        Raises:
            ExportError: if the file has other inputs, or a tensor is no NumPy type.
        """
        tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
        feed = {
            name: as_array(tensor, name)
            for name, tensor in zip(example.tensor_names(), tensors, strict=True)
        }
        wanted = {value.name for value in self._session.get_inputs()}
        if wanted != feed.keys():
            raise ExportError(
                f"{what}: the file's inputs are {sorted(wanted)}, the model's {sorted(feed)}",
                advice="compare the file with the model that it was made of",
            )
        return feed

    def run(self, feed: dict[str, Array]) -> list[Array]:
        """The outputs, in the file's order."""
        outputs: list[Array] = self._session.run(None, feed)
        return outputs

    def __call__(self, example: ExampleInputs, arguments: Inputs, what: str) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            ExportError: if the runtime cannot run the file on the arguments; see also `feed`.
        """
        feed = self.feed(example, arguments, what)
        try:
            outputs = self.run(feed)
        except Exception as error:
            raise ExportError(
                f"{what}: ONNX Runtime cannot run it: {reason(error)}",
                advice="the model may hold its example's batch size in a constant",
            ) from error
        names = (value.name for value in self._session.get_outputs())
        return dict(zip(names, outputs, strict=True))


def as_array(tensor: Tensor, name: str) -> Array:
    """A tensor's values in NumPy.

    Raises:
        ExportError: if NumPy has no such type.
    """
    try:
        array: Array = tensor.detach().cpu().numpy()
    except TypeError:
        raise ExportError(
            f"'{name}' is {tensor.dtype}, which cannot be compared through NumPy",
            advice="export the model in float32 or float16 (model.float())",
        ) from None
    return array
