"""Real models for benchmarks and slow tests: the examples, and torchvision where it is there.

torchvision has no CPU build that matches every torch; its Python models import once the two
operators that its binary part would define are declared.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TORCHVISION = {"resnet50": 64, "resnet101": 64, "wide_resnet50_2": 64, "vgg16_bn": 32}
"""Names, and the pixels of their images: at equal parameters a VGG's first maps grow most."""

_library: torch.library.Library | None = None


def declare_operators() -> None:
    """Declare what torchvision's binary part would define; timm and transformers import it too."""
    global _library
    if _library is None:
        _library = torch.library.Library("torchvision", "DEF")
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def torchvision_models() -> Any:
    """The module ``torchvision.models``.

    Raises:
        ImportError: if torchvision is not installed.
    """
    declare_operators()
    return importlib.import_module("torchvision.models")


def example(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """An example's model and inputs, by the name of its folder."""
    from cerewrite.frontend.loading import load

    loaded = load(str(EXAMPLES / name / "model.py"))
    return loaded.module, loaded.example_inputs


def image_model(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A torchvision model with random weights, and two small images."""
    factory: Callable[[], nn.Module] = getattr(torchvision_models(), name)
    pixels = TORCHVISION[name]
    return factory(), (torch.randn(2, 3, pixels, pixels),)


def everything() -> dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]]:
    """Every model by name; those of torchvision raise ImportError without it."""
    found = {
        path.parent.name: (lambda name=path.parent.name: example(name))
        for path in sorted(EXAMPLES.glob("*/model.py"))
    }
    return found | {name: (lambda name=name: image_model(name)) for name in TORCHVISION}
