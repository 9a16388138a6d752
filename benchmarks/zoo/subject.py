"""Build one model of the zoo with random weights, and find the smallest inputs that it takes."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo import hugging_face
from benchmarks.zoo.catalogue import Entry
from benchmarks.zoo.sources import torchvision_models
from cerewrite import ir

PIXELS = (64, 96, 128, 160, 192, 224, 256, 288, 384)
"""Sides of an image that are tried, in this order."""

Inputs = ir.Inputs


def build(entry: Entry) -> tuple[nn.Module, Inputs, int]:
    """A model, two small examples, and the pixels of a side; none of Hugging Face's.

    Raises:
        Exception: whatever the model raises at the last size that was tried.
    """
    if entry.source == "transformers":
        return *hugging_face.build(entry.model), 0
    torch.manual_seed(0)
    for pixels, make in _candidates(entry):
        try:
            model, inputs = make(), _inputs(entry, pixels)
            _run(model, inputs)
        except Exception as error:  # a model may refuse a size in any way
            failure = error
            continue
        return model, inputs, pixels
    raise failure


def _candidates(entry: Entry) -> Iterator[tuple[int, Callable[[], nn.Module]]]:
    """Sides of an image, and what builds the model for them."""
    create, options, key = _timm(entry) if entry.source == "timm" else _torchvision(entry)
    if key:
        for pixels in PIXELS[:3]:
            yield pixels, lambda p=pixels: create(entry.model, **options, **{key: p})
    once = functools.cache(lambda: create(entry.model, **options))
    for pixels in PIXELS:
        yield pixels, once


Source = tuple[Callable[..., nn.Module], dict[str, Any], str]
"""What creates a model, its options, and the option that holds the size of its images."""


def _timm(entry: Entry) -> Source:
    torchvision_models()  # timm imports torchvision
    import timm

    return timm.create_model, {"pretrained": False}, "img_size"


def _torchvision(entry: Entry) -> Source:
    models = torchvision_models()
    taken = inspect.signature(models.get_model_builder(entry.model)).parameters
    options = {key: None for key in ("weights", "weights_backbone") if key in taken}
    if entry.family.startswith("detection"):
        _declare_nms()
        return models.get_model, options, "min_size"
    return models.get_model, options, "image_size" if "vision" in entry.family else ""


def _declare_nms() -> None:
    """Stand in for torchvision's compiled operator: boxes by falling score, none that overlap."""
    boxes = importlib.import_module("torchvision.ops.boxes")

    def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        overlap = boxes.box_iou(dets, dets) > iou_threshold
        kept: list[int] = []
        for index in scores.argsort(descending=True).tolist():
            if not kept or not bool(overlap[index, kept].any()):
                kept.append(index)
        return torch.tensor(kept, dtype=torch.int64)

    boxes.nms = nms


def _inputs(entry: Entry, pixels: int) -> tuple[Any, ...]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))

    if entry.family.startswith("detection"):
        return ([draw(3, pixels, pixels), draw(3, pixels, pixels)],)
    if entry.family.startswith("video"):
        frames = 16 if "mvit" in entry.family or "s3d" in entry.family else 8
        return (draw(2, 3, frames, pixels, pixels),)
    if entry.family.startswith("optical_flow"):
        return (draw(2, 3, pixels, pixels), draw(2, 3, pixels, pixels))
    return (draw(2, 3, pixels, pixels),)


def _run(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """One forward in evaluation mode, as it was afterwards."""
    training = model.training
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        model.eval()(*inputs)
    model.train(training)
