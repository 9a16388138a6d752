"""The export stage: a module as an ONNX file, proved in ONNX Runtime.

This package is, with one file of the verifier, the only place that imports onnx.
"""

from cerewrite.exporter.export import export_onnx
from cerewrite.exporter.parity import check_parity

__all__ = ["check_parity", "export_onnx"]
