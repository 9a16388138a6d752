"""An exported file and how well it agrees with PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.ranges import Cost, Extended, Index, Text


@dataclass(frozen=True, slots=True)
class Parity:
    """PyTorch against ONNX Runtime at one batch size.

    Attributes:
        batch: batch size.
        relative_error: ``max |torch - onnx| / max |torch|``, the worst output's.
        limit: the largest error that passes.
        note: what was compared, where it is not the model as it stands.
    """

    batch: Index
    relative_error: Extended
    limit: Extended
    note: Text = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit."""
        return self.relative_error <= self.limit


@dataclass(frozen=True, slots=True)
class Export:
    """An ONNX file and how well it agrees with PyTorch.

    Attributes:
        path: file name.
        opset: operator set version.
        nodes: nodes in the graph.
        size: bytes of the file.
        parity: agreement per batch size.
        inputs, outputs: names and shapes, a symbolic axis by its name.
    """

    path: Text
    opset: Index
    nodes: Index
    size: Cost
    parity: tuple[Parity, ...]
    inputs: tuple[tuple[Text, tuple[Index | Text, ...]], ...]
    outputs: tuple[tuple[Text, tuple[Index | Text, ...]], ...]
