"""Models as people have them: each is converted and verified, or declined with typed reasons."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import cerewrite
from tests.models import chain

Found = tuple[nn.Module, Any]


def body(inputs: int = 12, outputs: int = 5) -> nn.Sequential:
    """Three hidden widths: one region at block scope."""
    return chain([32, 32, 32], bias=True, inputs=inputs, outputs=outputs)


def x() -> Tensor:
    return torch.randn(2, 12)


class Around(nn.Module):
    """A body inside a forward that a test writes."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.body = body()
        self.written = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.written(self, *args, **kwargs)


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, *, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Any:
        out = self.body(x) * scale
        return {"out": out} if mask is None else {"out": out * mask, "mask": mask}


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@dataclasses.dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


def conv_in_half() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs in (3, 16, 16):
        layers += [nn.Conv2d(inputs, 16, 3), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 4, 1)).bfloat16()


def casting() -> nn.Module:
    model = Around(lambda self, x: self.body(x.to(torch.bfloat16)).float())
    model.body.bfloat16()
    return model


def compiled_in_place() -> nn.Module:
    model = body()
    model.compile(backend="eager")
    return model


def hooked(where: int) -> nn.Module:
    model = body()
    model[where].register_forward_hook(lambda module, args, out: out * 2)
    return model


def with_buffer() -> nn.Module:
    model = Around(lambda self, x: functional.linear(self.body(x), self.fixed))
    model.register_buffer("fixed", torch.randn(4, 5))
    return model


def while_loop(self: Around, x: Tensor) -> Tensor:
    while float(x.abs().max()) > 0.5:
        x = x * 0.5
    return self.body(x)


CONVERTED: dict[str, Callable[[], Found]] = {
    "two inputs": lambda: (
        Around(lambda self, a, b: self.body(self.a(a) + self.b(b)),
               a=nn.Linear(4, 12), b=nn.Linear(3, 12)),
        (torch.randn(2, 4), torch.randn(2, 3)),
    ),
    "keywords, a number among them": lambda: (
        Keyword(), {"x": x(), "mask": torch.ones(2, 5), "scale": 2.0}
    ),
    "a dictionary as input": lambda: (
        Around(lambda self, batch: self.body(batch["x"]) + batch["more"][0]),
        ({"x": x(), "more": [torch.ones(2, 5)]},),
    ),
    "data class as output": lambda: (Around(lambda self, x: Output(self.body(x))), (x(),)),
    "named tuple as output": lambda: (Around(lambda self, x: Pair(self.body(x), x)), (x(),)),
    "integers": lambda: (
        Around(lambda self, ids: self.body(self.table(ids).mean(1)), table=nn.Embedding(20, 12)),
        (torch.randint(0, 20, (2, 7)),),
    ),
    "bfloat16": lambda: (body().bfloat16(), (x().bfloat16(),)),
    "float16": lambda: (body().half(), (x().half(),)),
    "float64": lambda: (body().double(), (x().double(),)),
    "bfloat16 convolutions": lambda: (conv_in_half(), (torch.randn(2, 3, 9, 9).bfloat16(),)),
    "casts in the forward": lambda: (casting(), (x(),)),
    "evaluation mode": lambda: (body().eval(), (x(),)),
    "hook on an activation": lambda: (hooked(1), (x(),)),
    "DataParallel": lambda: (nn.DataParallel(body()), (x(),)),
    "torch.compile": lambda: (torch.compile(body(), backend="eager"), (x(),)),
    "compiled in place": lambda: (compiled_in_place(), (x(),)),
    "a compiled part": lambda: (
        nn.Sequential(torch.compile(body(outputs=12), backend="eager"), body()), (x(),)
    ),
    "prints": lambda: (Around(lambda self, x: (print(x.shape), self.body(x))[1]), (x(),)),
    "looks at values": lambda: (
        Around(lambda self, x: self.body(x) if x.sum() > 0 else self.other(x),
               other=nn.Linear(12, 5)),
        (torch.ones(2, 12),),
    ),
    "loops on values": lambda: (Around(while_loop), (x(),)),
    "goes through numpy": lambda: (
        Around(lambda self, x: self.body(torch.from_numpy(x.detach().numpy() * 2))), (x(),)
    ),
    "a weight that is a buffer": lambda: (with_buffer(), (x(),)),
}  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("name", CONVERTED)
def test_converted(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model, inputs = CONVERTED[name]()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    result = cerewrite.convert(model, inputs, budget="params", gain="he", estimator="analytic")
    assert result.plan.splits and result.verification.passed
    assert "not run" not in " ".join(c.detail for c in result.verification.checks)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert capsys.readouterr().out == ""


def tied() -> nn.Module:
    model = body()
    model[4].weight = model[2].weight
    return model


def normed(norm: Callable[[nn.Module], Any]) -> nn.Module:
    model = body()
    norm(model[2])
    return model


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(body(), {nn.Linear})


def inside(model: nn.Module, start: int, stop: int, x: Tensor) -> Tensor:
    return model.body[start:stop](x)


def beside(self: Around, x: Tensor) -> Tensor:
    """What BERT does with its pooler where no output reads it."""
    hidden = inside(self, 0, 4, x)
    self.pooler(hidden)
    return inside(self, 4, 7, hidden)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "tied": (tied, "2"),
    "hooked": (lambda: hooked(2), "2"),
    "parametrised": (lambda: normed(parametrizations.weight_norm), "2"),
    "parametrised by spectral norm": (lambda: normed(parametrizations.spectral_norm), "2"),
    "parametrised by a hook": (lambda: normed(torch.nn.utils.spectral_norm), "2"),
    "quantised": (quantised, "0"),
    "shared": (
        lambda: Around(
            lambda self, x: self.body(self.twice(self.twice(x))), twice=nn.Linear(12, 12)
        ),
        "twice",
    ),
    "used-outside-its-module": (
        lambda: Around(
            lambda self, x: self.body(x) + functional.linear(x, self.other.weight),
            other=nn.Linear(12, 5),
        ),
        "other.weight",
    ),
    "fixed-view": (
        lambda: Around(
            lambda self, x: inside(self, 4, 7, inside(self, 0, 4, x).view(2, 32))
        ),
        "body.2",
    ),
    "data-dependent": (
        lambda: Around(
            lambda self, x: self.b(self.a(x).relu() if x.sum() > 0 else x[:, :5]),
            a=nn.Linear(12, 5), b=nn.Linear(5, 5),
        ),
        "a",
    ),
    "computed-weight": (
        lambda: Around(
            lambda self, x: functional.linear(self.body(x), self.a.weight @ self.a.weight),
            a=nn.Linear(5, 5),
        ),
        "body.6",
    ),
    "unused": (lambda: Around(beside, pooler=nn.Linear(32, 8)), "pooler"),
    "complex": (lambda: body().to(torch.complex64), "2"),
    "one-channel": (lambda: chain([1, 1, 1], inputs=12), "2"),
    "no-channels": (lambda: chain([4, 0, 4], inputs=12), "2"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_code_reason_and_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cerewrite.cli.explaining import explain_lines, explained
    from cerewrite.cli.session import Session
    from cerewrite.frontend.loading import Loaded

    torch.manual_seed(0)
    make, layer = REFUSED[name]
    model, code = make(), name.partition(" ")[0]
    inputs = (torch.ones(2, 12, dtype=torch.complex64 if code == "complex" else None),)
    loaded = Loaded(model, "model.py", "test"), inputs
    monkeypatch.setattr(Session, "load", lambda self, spec: loaded)
    lines = list(explain_lines(explained(Session(quiet=True), "model.py", layer, {"draws": 16})))
    at = next((i for i, line in enumerate(lines) if f"({code})" in line), None)
    assert at is not None, lines
    assert len(lines[at].partition("): ")[2]) > 10 and lines[at + 1].startswith("  -> ")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("scope", ["block", "network"])
def test_a_layer_that_no_output_depends_on_stops_no_region(scope: str) -> None:
    torch.manual_seed(0)
    model = Around(beside, pooler=nn.Linear(32, 32))
    found = cerewrite.analyze(model, (x(),), scope=scope, estimator="analytic", gain="he")
    plan = cerewrite.plan(found, budget="params", allow="all", widths="free")
    new = cerewrite.apply(plan, model)
    assert plan.splits and new.pooler.out_features == 32
    assert cerewrite.verify(model, new, plan, (x(),)).passed


@pytest.mark.parametrize("widths", ["free", "proportional"])
def test_tables_behind_a_norm_keep_the_proportions_of_their_region(widths: str) -> None:
    """Electra's factorised embedding: a norm holds its energy still, so no figure holds it up."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(11, 16), nn.LayerNorm(16), nn.Linear(16, 64), nn.ReLU(),
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5),
    )  # fmt: skip
    inputs = (torch.arange(6).reshape(2, 3),)
    found = cerewrite.analyze(model, inputs, scope="network", estimator="analytic", gain="he")
    plan = cerewrite.plan(found, budget="params", allow="all", widths=widths)
    (split,) = plan.splits
    table, wide, again = split.design.widths
    assert table / 16 == pytest.approx(wide / 64, rel=0.25) and again == wide
    new = cerewrite.apply(plan, model)
    assert cerewrite.verify(model, new, plan, inputs).passed


def raises(self: Around, x: Tensor) -> Tensor:
    raise KeyError("planted")


def grows(self: Around, x: Tensor) -> Tensor:
    if not hasattr(self, "extra"):
        self.extra = nn.Linear(x.shape[1], 12)
    return self.body(self.extra(x))


ERRORS: dict[str, tuple[Callable[[], Found], type[cerewrite.CerewriteError], str, str]] = {
    "raises": (lambda: (Around(raises), (x(),)), cerewrite.TraceError, "KeyError: 'planted'", ""),
    "needs a GPU": (
        lambda: (Around(lambda self, x: self.body(x.to("cuda:7"))), (x(),)),
        cerewrite.TraceError, "CUDA", "device",
    ),
    "grows": (lambda: (Around(grows), (x(),)), cerewrite.TraceError, "adds 'extra'", "__init__"),
    "lazy": (
        lambda: (nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 8)), (x(),)),
        cerewrite.TraceError, "0.weight", "once",
    ),
    "script": (
        lambda: (nn.Sequential(body(), torch.jit.script(nn.Linear(5, 5))), (x(),)),
        cerewrite.TraceError, "'1' is a script", "script the result",
    ),
    "empty batch": (lambda: (body(), (x()[:0],)), cerewrite.TraceError, "batch is empty", ""),
    "empty layer": (
        lambda: (chain([4, 0, 4], inputs=12), (x(),)), cerewrite.AnalysisError, "empty", "",
    ),
    "no layers": (lambda: (nn.ReLU(), (x(),)), cerewrite.AnalysisError, "no linear", ""),
    "no output": (
        lambda: (Around(lambda self, x: None), (x(),)), cerewrite.AnalysisError, "", "",
    ),
    "not a number": (
        lambda: (normed(lambda m: m.weight.data.fill_(torch.nan)), (x(),)),
        cerewrite.AnalysisError, "'2' are not finite", "he",
    ),
    "layers in a list": (
        lambda: (Around(lambda self, x: self.layers(x)), (x(),)),
        cerewrite.TraceError, "layers", "",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", ERRORS)
def test_typed_errors(name: str) -> None:
    make, kind, message, advice = ERRORS[name]
    model, inputs = make()
    structure = [(key, id(module)) for key, module in model.named_modules()]
    with pytest.raises(kind) as caught:
        cerewrite.convert(model, inputs, budget="params", estimator="analytic")
    assert message in caught.value.message and advice in caught.value.advice
    assert caught.value.advice
    assert [(key, id(module)) for key, module in model.named_modules()] == structure


def test_a_wrapped_model_is_not_changed_in_place() -> None:
    torch.manual_seed(0)
    model = body()
    plan = cerewrite.convert(model, (x(),), budget="params", estimator="analytic").plan
    wrapped = nn.DataParallel(model)
    with pytest.raises(cerewrite.RewriteError, match="DataParallel"):
        cerewrite.apply(plan, wrapped, inplace=True)
    new = cerewrite.apply(plan, wrapped)
    assert type(new) is nn.Sequential
    assert cerewrite.verify(wrapped, torch.compile(new, backend="eager"), plan, (x(),)).passed
    assert cerewrite.revert(nn.DataParallel(new)) is new


def test_distributed_wrappers_are_taken_off(tmp_path: Path) -> None:
    from torch import distributed

    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        wrapped = nn.parallel.DistributedDataParallel(body())
        result = cerewrite.convert(wrapped, (x(),), budget="params", estimator="analytic")
    finally:
        distributed.destroy_process_group()
    assert type(result.model) is nn.Sequential and result.verification.passed
