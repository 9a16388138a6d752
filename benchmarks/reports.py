"""Two real reports that the page's tests show: ResNet-50 converted, ViT-L analysed.

    python -m benchmarks.reports

writes them to ``tests/reporter/reports``, again after a record has changed. ResNet-50 is converted
at 64 pixels with every cost held but the step's time, so that most of its regions change; ViT-L
is analysed in closed form, without weights.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import torch

import cerewrite
from benchmarks.zoo.sources import torchvision_models
from cerewrite import ir

FOLDER = Path(__file__).parent.parent / "tests" / "reporter" / "reports"


def resnet50() -> ir.Report:
    """ResNet-50, converted."""
    torch.manual_seed(0)
    net, images = torchvision_models().resnet50(), torch.randn(2, 3, 64, 64)
    made = cerewrite.convert(
        net, images, draws=16, step_batch=2, allow="step=1.3x", min_width=8, bench={"runs": 5}
    )
    return made.report


def vit_l_16() -> ir.Report:
    """ViT-L/16, analysed."""
    with torch.device("meta"):
        net, images = torchvision_models().vit_l_16(), torch.randn(2, 3, 224, 224)
    return ir.Report(cerewrite.analyze(net, images, estimator="analytic", gain="he"))


def main() -> None:
    """Write both."""
    for make in (resnet50, vit_l_16):
        data = ir.dumps(make()).encode()
        (FOLDER / f"{make.__name__}.json.gz").write_bytes(gzip.compress(data, mtime=0))


if __name__ == "__main__":
    main()
