"""Everything that a model's process needs, imported once by the server that forks it."""

from __future__ import annotations

import contextlib
from functools import partial

import torch
from torch import nn

import benchmarks.zoo.worker  # noqa: F401
from benchmarks.zoo.sources import torchvision_models

torch.set_num_threads(1)
for source in (torchvision_models, *(partial(__import__, n) for n in ("timm", "transformers"))):
    with contextlib.suppress(ImportError):  # the other sources are enough
        source()
with torch.no_grad():  # the exporter imports most of itself at its first use
    torch.export.export(nn.Linear(2, 2).eval(), (torch.ones(2, 2),), strict=False)
