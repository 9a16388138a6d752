from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cerewrite.analysis import analyze
from cerewrite.errors import TraceError
from cerewrite.frontend.tracing import trace
from cerewrite.frontend.tracing.ladder import Frontend
from cerewrite.frontend.tracing.recorder_rung import recorded_ops
from cerewrite.frontend.tracing.symbolic_rung import symbolic_ops
from cerewrite.frontend.tracing.widths import build_widths
from cerewrite.ir import TracedModel
from tests.models import ResidualNet, chain, plain_cnn

MODELS = {
    "chain": (lambda: chain([8, 6, 8]), torch.ones(2, 7)),
    "residual": (ResidualNet, torch.ones(2, 3, 8, 8)),
    "cnn": (plain_cnn, torch.ones(2, 3, 9, 9)),
}


def structure(traced: TracedModel) -> object:
    """What both rungs must agree on."""
    layers = [
        (x.name, x.op, x.sources, x.target, x.in_channels, x.out_channels, x.groups, x.kernel,
         x.positions, x.bias)
        for x in traced.layers
    ]  # fmt: skip
    widths = [
        (w.name, w.size, w.writers, w.readers, w.couplings, w.modules, [p.code for p in w.pins])
        for w in traced.widths
    ]
    return layers, widths


@pytest.mark.parametrize("frontend", [symbolic_ops, recorded_ops])
@pytest.mark.parametrize("name", MODELS)
def test_rungs_see_the_same_layers_and_widths(name: str, frontend: Frontend) -> None:
    factory, x = MODELS[name]
    model = factory()
    first = trace(model, x)
    assert first.frontend == "export"
    second = build_widths(
        frontend(model.eval(), (x,), {}), model, frontend="", batch=2, fingerprint=""
    )
    assert structure(second) == structure(first)


@pytest.mark.parametrize("name", MODELS)
def test_rungs_give_the_same_closed_form(name: str) -> None:
    factory, x = MODELS[name]
    torch.manual_seed(0)
    model = factory()
    first = trace(model, x)
    ops = recorded_ops(model.eval(), (x,), {})
    second = build_widths(ops, model, frontend="", batch=2, fingerprint="")
    assert analyze(second, model, estimator="analytic").nu.value == pytest.approx(
        analyze(first, model, estimator="analytic").nu.value
    )


def test_model_is_untouched() -> None:
    model = plain_cnn()
    model[1].eval()
    flags = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trace(model, torch.randn(2, 3, 9, 9))
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_meta_parameters_trace_with_stock_gains() -> None:
    with torch.device("meta"):
        model = chain([64, 64], bias=True)
    traced = trace(model, torch.ones(2, 7, device="meta"))
    assert [layer.gain for layer in traced.layers] == [1 / 3] * 3
    assert traced.layers[1].bias_variance == pytest.approx(1 / 3 / 64)


def test_gain_is_read_from_the_weights() -> None:
    torch.manual_seed(0)
    model = chain([400, 400])
    nn.init.kaiming_normal_(model[2].weight)
    traced = trace(model, torch.ones(2, 7))
    assert traced.layers[1].gain == pytest.approx(2.0, rel=0.02)
    assert traced.layers[0].gain == pytest.approx(1 / 3, rel=0.05)


def test_export_failure_falls_to_the_next_rung() -> None:
    class Opaque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                raise RuntimeError("planted: not under export")
            return self.fc(x)

    traced = trace(Opaque(), torch.ones(2, 4))
    assert traced.frontend == "symbolic_trace"
    assert [layer.frontend for layer in traced.layers] == ["symbolic_trace"]
    assert "planted" in traced.rejections[0].reason


def test_recorder_says_why_the_earlier_rungs_failed(capsys: pytest.CaptureFixture[str]) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) if float(x.sum()) > 0 else x

    traced = trace(Branching(), torch.ones(2, 4))
    assert traced.frontend == "recorder"
    earlier = [r.reason.partition(":")[0] for r in traced.rejections if r.code == "earlier-rung"]
    assert earlier == ["export", "symbolic_trace"]
    assert capsys.readouterr() == ("", "")


def test_untraceable_model_names_every_rung() -> None:
    class Watchful(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch._C._len_torch_function_stack():
                raise RuntimeError("watched")
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(TraceError, match=r"export: .*symbolic_trace: .*recorder: .*watched"):
        trace(Watchful(), torch.ones(2, 4))


def test_wrong_input_shape_is_the_models_own_error() -> None:
    with pytest.raises(TraceError, match=r"raises on example inputs of shape \(2, 5\)") as caught:
        trace(chain([8]), torch.ones(2, 5))
    assert "--input" in caught.value.advice


@pytest.mark.parametrize("inputs", [None, (), (torch.tensor(1.0),)])
def test_inputs_without_a_batch_are_refused(inputs: object) -> None:
    with pytest.raises(TraceError, match="example inputs"):
        trace(chain([8]), inputs)


def test_keyword_inputs() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, *, scale: Tensor, x: Tensor) -> Tensor:
            return self.fc(x) * scale

    traced = trace(Named(), {"x": torch.ones(2, 4), "scale": torch.ones(2, 1)})
    assert [layer.name for layer in traced.layers] == ["fc"]
