"""The output folder: written whole or not at all, read back without pickle.

A folder holds ``plan.json``, ``model.safetensors`` and ``model_ce.py``, and, of a conversion,
``report.json``, ``report.html`` and, on request, ``model.onnx``.
"""

from cerewrite.output.factory import original_of, recorded_inputs, relative_source
from cerewrite.output.module_file import build_original, write_module
from cerewrite.output.names import MODULE, ONNX, PAGE, PLAN, REPORT, WEIGHTS
from cerewrite.output.records import read_record
from cerewrite.output.staging import check_target, claim, staged_folder, write_file
from cerewrite.output.swap import recover
from cerewrite.output.weights import load_weights, save_weights

__all__ = [
    "MODULE",
    "ONNX",
    "PAGE",
    "PLAN",
    "REPORT",
    "WEIGHTS",
    "build_original",
    "check_target",
    "claim",
    "load_weights",
    "original_of",
    "read_record",
    "recorded_inputs",
    "recover",
    "relative_source",
    "save_weights",
    "staged_folder",
    "write_file",
    "write_module",
]
