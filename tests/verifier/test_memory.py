"""What a conversion holds: three times the model, and one training step; measured in a process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite.errors import ShortOfMemoryError
from cerewrite.runtime.alone import alone, short_of_memory
from cerewrite.verifier import verify
from tests.conftest import ROOT
from tests.models import chain

PEAK = """
import sys, torch
from torch import nn
import cerewrite, cerewrite.api.conversion, cerewrite.api.stages
from cerewrite import analysis, planning, rewriting, verifier
from cerewrite.frontend import tracing

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

width, depth = 2048, 6
def net(width):
    torch.manual_seed(0)
    inner = [part for _ in range(depth) for part in (nn.ReLU(), nn.Linear(width, width))]
    return nn.Sequential(nn.Linear(64, width), *inner, nn.ReLU(), nn.Linear(width, 10))

x = torch.randn(2, 64)
options = dict(gain="he", min_width=256, channel_multiple=16)
options |= dict(estimator="analytic", allow="all", widths="free")
cerewrite.convert(net(512), x, **options)  # libraries, caches
base = status("VmRSS")
model = net(width)
open("/proc/self/clear_refs", "w").write("5")
cerewrite.convert(model, x, **options)
size = sum(p.numel() * p.element_size() for p in model.parameters())
print((status("VmHWM") - base) / size)
"""


@pytest.mark.thorough
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_conversion_holds_three_models_and_a_training_step() -> None:
    """The original, the rewritten one with what `revert` needs, a copy with one gradient."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 3.0 < float(done.stdout) < 5.0  # where everything is widened at once, above 7


def test_too_little_memory_is_no_verdict_on_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = chain([32, 32, 32], inputs=16), torch.randn(2, 16)
    result = cerewrite.convert(model, x, gain="he")
    huge = "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"

    def fail(*arguments: object, **named: object) -> object:
        raise RuntimeError(huge)

    monkeypatch.setattr("cerewrite.verifier.gradients.fresh_copy", fail)
    with pytest.raises(ShortOfMemoryError, match="memory of this machine is too small") as caught:
        cerewrite.convert(model, x, gain="he")
    assert caught.value.exit_code == 13 and "report" not in str(caught.value)
    with pytest.raises(RuntimeError):
        verify(model, result.model, result.plan, (x,))


def test_what_counts_as_too_little_memory() -> None:
    with pytest.raises(ShortOfMemoryError), alone():
        torch.empty(2**58)
    assert not short_of_memory(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError), alone():
        nn.Linear(2, 2)(torch.ones(3))
