"""The export stage: a module as an ONNX file, proved in ONNX Runtime.

It is the only place that imports onnx and ONNX Runtime.
"""

from cerewrite.exporter.export import export_onnx
from cerewrite.exporter.inputs import ExampleInputs
from cerewrite.exporter.parity import check_parity
from cerewrite.exporter.runner import Runner
from cerewrite.exporter.triton import triton_config

__all__ = ["ExampleInputs", "Runner", "check_parity", "export_onnx", "triton_config"]
