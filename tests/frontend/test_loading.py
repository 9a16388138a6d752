"""Loading models: what is found in a file, what is refused and in which words."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cerewrite.errors import LoadError, UsageError
from cerewrite.frontend import loading
from tests.conftest import WriteModel

NET = """
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, width)

    class Net(nn.Module):
        def __init__(self, width=8):
            super().__init__()
            self.block = Block(width)
"""


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        (
            "def build_model(width=3): return nn.Linear(width, 2)\nnet = nn.ReLU()",
            "build_model",
            "",
        ),
        ("def wide(): return nn.Linear(3, 2)", "wide", "factory"),
        ("def wide() -> nn.Module: return nn.Linear(3, 2)\ndef main() -> None: 1/0", "wide", ""),
        ("wide = lambda: nn.Linear(3, 2)", "wide", "factory"),
        ("wide = partial(nn.Linear, 3, 2)", "wide", "factory"),
        ("def _helper(): 1/0\nnet = nn.Linear(3, 2)", "net", "instance"),
        ("def helper(x): 1/0\nnet = nn.Linear(3, 2)\nsame = net", "net", "instance"),
        ("class Net(nn.Linear):\n  def __init__(self): super().__init__(3, 2)", "Net", "class"),
        (
            "class Net(nn.Linear):\n  def __init__(self): super().__init__(3, 2)\nnet = Net()",
            "net",
            "instance",
        ),
        ("def example_inputs(): return torch.ones(1)\ndef f(): return nn.Linear(3, 2)", "f", ""),
    ],
)
def test_bare_file_is_searched(write_model: WriteModel, text: str, name: str, kind: str) -> None:
    head = "import torch\nfrom functools import partial\nfrom torch import nn\n"
    path = write_model(head + text)
    loaded = loading.load(str(path))
    assert isinstance(loaded.module, nn.Linear)
    assert loaded.spec == f"{path}:{name}"
    assert loaded.factory.startswith(kind or "factory")


def test_classes_with_arguments_do_not_count(write_model: WriteModel) -> None:
    assert loading.load(str(write_model(NET))).spec.endswith(":Net")


def test_imported_classes_do_not_count(write_model: WriteModel) -> None:
    path = write_model("from torch.nn import ReLU, Flatten\ndef net(): return Flatten()")
    assert isinstance(loading.load(str(path)).module, nn.Flatten)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "yields a model without arguments: found no function and no nn.Module"),
        ("import torch\nclass A: pass", "found no function and no nn.Module"),
        ("def build(width): return 1", r"found only factory build \(needs width\)"),
        (
            "from torch import nn\nnet = nn.ReLU()\ndef build(): return nn.ReLU()",
            "2 things in it yield a model: instance net, factory build",
        ),
        ("def build_model(width): pass", r"factory build_model \(needs width\)"),
        ("raise ValueError('no data')", r"cannot be run: ValueError: no data \(line 1"),
        ("import sys\nsys.exit(3)", r"cannot be run: SystemExit: 3 \(line 2"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to"),
        ("def build_model(:", "cannot be run: SyntaxError"),
        (
            "def build_model(): return 3",
            "build_model: returned an object of type int",
        ),
        (
            "def build_model():\n    return {}['a']",
            r"raised: KeyError: 'a' \(line 2, in",
        ),
        ("def build_model(): raise SystemExit", "the factory raised: SystemExit"),
    ],
)
def test_bad_files(write_model: WriteModel, text: str, message: str) -> None:
    path = write_model(text)
    modules = set(sys.modules)
    with pytest.raises(LoadError, match=message) as caught:
        loading.load(str(path))
    assert caught.value.message.startswith(str(path))
    assert caught.value.advice
    assert "cannot be run" not in message or set(sys.modules) <= modules | {"nowhere"}


@pytest.mark.parametrize(
    ("spec", "message", "advice"),
    [
        ("no/such/model.py", "no such file", "check the path"),
        ("modle.py", "no such file", "did you mean 'model.py'"),
        ("model.py:buil_model", "defines no 'buil_model'", "did you mean 'build_model'"),
        ("model.py:Deep.net", "defines no 'Deep.net'", "choose from"),
        ("model.py:SIZE", "is of type int, neither", "zero-argument"),
        ("model.py:wide", "needs arguments: width, depth", "wrap it"),
        ("model", "no such file, and not of the form package.module:factory", "path/model.py"),
        ("notes.txt", "not a .py file", "path/model.py"),
        (".", "a folder, not a .py file", "path/model.py"),
        ("", "a folder, not a .py file", "path/model.py"),
        ("nowhere_at_all.models:net", "no module named 'nowhere_at_all'", "install it"),
        ("torch.nn.nowhere:net", "no module named 'torch.nn.nowhere'", "install it"),
        ("torch.nn:Liner", "defines no 'Liner'", "did you mean 'Linear'"),
        ("torch.nn:Linear", "needs arguments: in_features, out_features", "wrap it"),
        ("torch.nn:", "not of the form", "path/model.py"),
        ("folder.py", "not a file", "inside it"),
    ],
)
def test_bad_specs(
    write_model: WriteModel,
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    message: str,
    advice: str,
) -> None:
    folder = write_model("SIZE = 3\ndef wide(width, depth): 1\ndef build_model(): 1").parent
    (folder / "notes.txt").write_text("")
    (folder / "folder.py").mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(LoadError, match=re.escape(message)) as caught:
        loading.load(spec)
    assert advice in caught.value.advice


def test_importable_factory() -> None:
    loaded = loading.load("torch.nn:Flatten")
    assert isinstance(loaded.module, nn.Flatten)
    assert loaded.example_inputs is None


def test_module_in_the_working_directory(
    write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model("from torch import nn\ndef net(): return nn.ReLU()", "models_here_only.py")
    monkeypatch.chdir(path.parent)
    before = list(sys.path)
    assert isinstance(loading.load("models_here_only:net").module, nn.ReLU)
    assert sys.path == before
    sys.modules.pop("models_here_only")


def test_files_beside_a_model_file_are_its_own(write_model: WriteModel) -> None:
    text = "from blocks_beside import WIDTH\nfrom torch import nn\nnet = nn.Linear(WIDTH, 1)"
    first, second = (write_model(text, f"{name}/model.py") for name in ("first", "second"))
    for width, path in ((3, first), (4, second)):
        (path.parent / "blocks_beside.py").write_text(f"WIDTH = {width}")
    before = list(sys.path)
    widths = [loading.load(str(path)).module.in_features for path in (first, second, first)]
    assert widths == [3, 4, 3]
    assert sys.path == before


def test_loading_twice_gives_two_models_of_the_file_as_it_is(write_model: WriteModel) -> None:
    text = "from torch import nn\nclass Net(nn.Linear):\n  def __init__(s): super().__init__({}, 1)"
    first = loading.load(str(write_model(text.format(3)))).module
    second = loading.load(str(write_model(text.format(4)))).module
    assert (first.in_features, second.in_features) == (3, 4)
    assert type(first) is not type(second)
    assert sys.modules[type(first).__module__].Net is type(first)
    assert not list(Path(write_model("")).parent.rglob("__pycache__"))


def test_relative_to_a_root(write_model: WriteModel) -> None:
    path = write_model("from torch import nn\nnet = nn.ReLU()", "nets/model.py")
    assert isinstance(loading.build("../nets/model.py", root=path.parent), nn.ReLU)


def test_printing_files_are_fine(
    write_model: WriteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    loading.load(str(write_model("print('hello')\nfrom torch import nn\nnet = nn.ReLU()")))
    assert capsys.readouterr().out == "hello\n"


def test_seed_makes_the_weights_and_leaves_the_generator(write_model: WriteModel) -> None:
    path = str(write_model("from torch import nn\ndef net(): return nn.Linear(3, 3)"))
    state = torch.random.get_rng_state()
    weights = [loading.load(path, seed=seed).module.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("example_inputs = torch.ones(2, 3)", [(2, 3)]),
        ("example_inputs = (torch.ones(2, 3), torch.ones(2))", [(2, 3), (2,)]),
        ("def example_inputs(): return [torch.ones(2, 3)]", [(2, 3)]),
        ("def example_inputs(): return dict(input=torch.ones(2, 3))", [(2, 3)]),
    ],
)
def test_example_inputs(write_model: WriteModel, text: str, shapes: list[tuple[int, ...]]) -> None:
    head = "import torch\nnet = torch.nn.Linear(3, 2)\n"
    inputs = loading.load(str(write_model(head + text))).example_inputs
    assert inputs is not None
    described = loading.describe_inputs(inputs)
    assert described is not None
    assert [item.shape for item in described] == shapes
    assert [item.name for item in described] == (
        ["input"] if "dict" in text else [""] * len(shapes)
    )


@pytest.mark.parametrize("text", ["example_inputs = 3", "def example_inputs(): return ()"])
def test_example_inputs_of_another_kind(write_model: WriteModel, text: str) -> None:
    path = write_model("import torch\nnet = torch.nn.Linear(3, 2)\n" + text)
    with pytest.raises(LoadError, match="not a tensor, tuple or dict"):
        loading.load(str(path))


def test_example_inputs_that_raise(write_model: WriteModel) -> None:
    path = write_model("import torch\nnet = torch.nn.ReLU()\ndef example_inputs(): 1/0")
    with pytest.raises(LoadError, match=r"ZeroDivisionError.*\(line 3"):
        loading.load(str(path))


@pytest.mark.parametrize(
    ("text", "shape", "dtype", "name"),
    [
        ("1,3,224,224", (1, 3, 224, 224), "float32", ""),
        ("7", (7,), "float32", ""),
        ("2,16:int64", (2, 16), "int64", ""),
        ("ids=2,16:int64", (2, 16), "int64", "ids"),
    ],
)
def test_input_shapes(text: str, shape: tuple[int, ...], dtype: str, name: str) -> None:
    parsed = loading.parse_input_shape(text)
    assert parsed == loading.InputShape(shape, dtype, name)
    assert loading.parse_input_shape(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["", ",", "1,x", "0,3", "-1,3", "1,3:int65", "1 3", "a b=1,3"])
def test_bad_input_shapes(text: str) -> None:
    with pytest.raises(UsageError, match="--input"):
        loading.parse_input_shape(text)


def test_inputs_are_seeded_and_hold_at_least_two_rows() -> None:
    shapes = [loading.InputShape((1, 3)), loading.InputShape((5, 2), "int64")]
    first, second = (loading.make_inputs(shapes, seed=3) for _ in range(2))
    assert isinstance(first, tuple)
    assert [tuple(item.shape) for item in first] == [(2, 3), (5, 2)]
    assert [item.dtype for item in first] == [torch.float32, torch.int64]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert set(first[1].flatten().tolist()) <= {0, 1}
    assert loading.describe_inputs(first) == [
        loading.InputShape((2, 3)),
        loading.InputShape((5, 2), "int64"),
    ]


def test_named_inputs() -> None:
    inputs = loading.make_inputs([loading.InputShape((2, 3), name="x")])
    assert isinstance(inputs, dict)
    assert list(inputs) == ["x"]
    for names in (("x", ""), ("x", "x")):
        with pytest.raises(UsageError, match="each once"):
            loading.make_inputs([loading.InputShape((2, 3), name=name) for name in names])


def test_what_cannot_be_described() -> None:
    assert loading.describe_inputs((torch.ones(2), 3)) is None
    assert loading.describe_inputs((torch.tensor(1.0),)) is None
    assert loading.describe_inputs((torch.ones(2, dtype=torch.complex64),)) is None
