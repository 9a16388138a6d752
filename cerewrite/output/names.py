"""File names of an output folder."""

PLAN = "plan.json"
WEIGHTS = "model.safetensors"
REPORT = "report.json"
PAGE = "report.html"
ONNX = "model.onnx"
MODULE = "model_ce.py"

OURS = frozenset({PLAN, WEIGHTS, REPORT, PAGE, ONNX, f"{ONNX}.data", MODULE, "__pycache__"})
"""What `--force` may replace."""
