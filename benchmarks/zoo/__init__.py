"""Real models: the examples, torchvision's, timm's, Hugging Face's; coverage of them all.

    python -m benchmarks.zoo [--source torchvision] [--only PATTERN] [--onnx] [--jobs N]

converts every torchvision model, a stratified selection of timm's and tiny models of Hugging
Face's architectures, each in a process of its own, and writes ``docs/coverage.json`` and
``docs/COVERAGE.md``. It picks up where it stopped.
"""

from benchmarks.zoo.sources import EXAMPLES, everything, example, image_model, torchvision_models

__all__ = ["EXAMPLES", "everything", "example", "image_model", "torchvision_models"]
