from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import cerewrite
from cerewrite.errors import RewriteError, TrainingError, UsageError
from cerewrite.training import distill
from cerewrite.training.losses import LOSSES, soft_labels
from tests.rewriting.cases import parameters_of, same_state


def net(width: int, seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(dropout),
        nn.Linear(width, 4),
    )  # fmt: skip


def loader(seed: int = 0, examples: int = 96) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(examples, 6, generator=generator), torch.arange(examples)
    return DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)


class Sudden(Exception):
    """What ends a run from outside."""


class Cut:
    """A loader that fails in one of its epochs, like a process that is ended."""

    def __init__(self, batches: DataLoader[Any], epoch: int) -> None:
        self.batches, self.left = batches, epoch

    def __iter__(self) -> Iterator[Any]:
        self.left -= 1
        for index, batch in enumerate(self.batches):
            if self.left < 0 and index == 1:
                raise Sudden
            yield batch


def test_the_student_learns_and_the_teacher_stays() -> None:
    teacher, student = net(24), net(12, 1)
    teacher(torch.randn(50, 6))
    before, random = parameters_of(teacher), torch.get_rng_state()
    result = distill(student, teacher, loader(), epochs=30, validation=loader(1), patience=30)
    assert result.scores[result.best] < 0.5 * result.scores[0]
    assert result.best == min(range(30), key=result.scores.__getitem__)
    assert (result.epochs, result.steps, result.stopped) == (30, 90, "epochs")
    assert same_state(parameters_of(teacher), before)
    assert teacher.training and student.training
    assert torch.equal(torch.get_rng_state(), random)


def test_same_seed_same_bytes_another_seed_others() -> None:
    states = []
    for seed in (0, 0, 1):
        student = net(12, 1, dropout=0.5)
        distill(student, net(24), loader(), epochs=2, seed=seed)
        states.append(parameters_of(student))
    assert same_state(states[0], states[1]) and not same_state(states[0], states[2])


@pytest.mark.parametrize("cut", [1, 3])
@pytest.mark.parametrize("kind", ["adam", "momentum"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, cut: int, kind: str) -> None:
    def make(parameters: Any) -> torch.optim.Optimizer:
        if kind == "adam":
            return torch.optim.Adam(parameters, 3e-3)
        return torch.optim.SGD(parameters, 0.1, momentum=0.9)

    whole = net(12, 1, dropout=0.3)
    options: dict[str, Any] = {"epochs": 5, "optimiser": make, "patience": 5}
    expected = distill(whole, net(24), loader(), **options)
    options["checkpoint"] = tmp_path / "new" / "run.safetensors"
    broken = net(12, 1, dropout=0.3)
    with pytest.raises(Sudden):
        distill(broken, net(24), Cut(loader(), cut), **options)
    assert broken.training
    fresh = net(12, 7, dropout=0.3)
    result = distill(fresh, net(24), loader(), **options)
    assert (result.resumed, result.losses) == (cut, expected.losses)
    assert same_state(parameters_of(fresh), parameters_of(whole))
    assert [item.name for item in options["checkpoint"].parent.iterdir()] == ["run.safetensors"]
    again = distill(net(12, 3, dropout=0.3), net(24), [], **options)
    assert (again.epochs, again.resumed) == (5, 5)
    longer = distill(net(12, 3, dropout=0.3), net(24), loader(), **{**options, "epochs": 6})
    assert longer.losses[:5] == expected.losses and longer.epochs == 6


def test_early_stop_gives_the_best_weights() -> None:
    student = net(12, 1)
    kept: list[dict[str, Tensor]] = []

    class Noted:
        def __iter__(self) -> Iterator[Any]:
            kept.append(parameters_of(student))
            yield from loader(1)

    result = distill(
        student, net(24), loader(), epochs=50, validation=Noted(), patience=2, tolerance=0.2
    )
    assert result.stopped == "patience" and result.epochs < 50
    best = min(result.scores[:-2])
    assert min(result.scores[-2:]) > 0.8 * best
    assert same_state(parameters_of(student), kept[result.best])


def test_soft_labels_agree_only_where_the_probabilities_do() -> None:
    x = torch.randn(5, 4)
    assert float(soft_labels(x + 3, x)) == pytest.approx(0, abs=1e-5)
    assert float(soft_labels(x * 2, x)) > 0.01
    student = net(12, 1)
    result = distill(student, net(24), loader(), epochs=15, loss="kl", patience=15)
    assert result.losses[-1] < 0.5 * result.losses[0]
    assert set(LOSSES) == {"mse", "kl"}


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_batches_may_be_tensors_tuples_or_dicts(form: str) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"scores": self.layer(x), "sum": self.layer(x).sum(1)}

    batches = [{"tensor": x, "tuple": (x, 1), "dict": {"x": x}}[form] for x in torch.randn(3, 8, 6)]
    result = distill(Named(), Named(), batches, epochs=2)
    assert result.steps == 6 and result.losses[1] < result.losses[0]


BAD_LOADERS: dict[str, tuple[Any, str]] = {
    "empty": ([], "gave no batches in epoch 1"),
    "iterator": (iter([torch.randn(8, 6)]), "gave no batches in epoch 2"),
    "words": (["words"], "without a tensor in front"),
    "nothing": ([()], "without a tensor in front"),
    "nan": ([torch.randn(8, 6), torch.full((8, 6), torch.nan)], "the loss is nan"),
}


@pytest.mark.parametrize("name", BAD_LOADERS)
def test_bad_loaders_are_refused_and_checkpoints_stay(tmp_path: Path, name: str) -> None:
    batches, reason = BAD_LOADERS[name]
    student, file = net(12, 1), tmp_path / "run.safetensors"
    distill(student, net(24), loader(), epochs=1, checkpoint=file)
    before, weights = file.read_bytes(), parameters_of(student)
    if name == "iterator":
        batches = iter(list(batches)[:0])
        reason = "gave no batches in epoch 2"
    if name == "empty":
        reason = "gave no batches in epoch 2"
    with pytest.raises(TrainingError, match=reason) as error:
        distill(student, net(24), batches, epochs=3, checkpoint=file)
    assert error.value.advice
    assert file.read_bytes() == before
    assert student.training
    if name == "nan":
        assert same_state(parameters_of(student), weights)


def test_an_empty_loader_is_refused_at_once() -> None:
    with pytest.raises(TrainingError, match="the loader gave no batches in epoch 1"):
        distill(net(12), net(24), [])
    with pytest.raises(TrainingError, match="the validation loader gave no batches in epoch 1"):
        distill(net(12), net(24), loader(), validation=[])
    once = iter([torch.randn(8, 6)])
    with pytest.raises(TrainingError, match="epoch 2") as error:
        distill(net(12), net(24), once)
    assert "iterated anew" in error.value.advice


def test_a_diverging_run_ends_with_the_best_weights() -> None:
    student = net(12, 1)
    before = parameters_of(student)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf)") as error:
        distill(student, net(24), loader(), epochs=50, patience=50,
                optimiser=lambda p: torch.optim.SGD(p, 1e30))  # fmt: skip
    assert "learning rate" in error.value.advice
    assert all(value.isfinite().all() for value in parameters_of(student).values())
    assert before.keys() == parameters_of(student).keys()


def test_a_teacher_with_other_outputs_is_refused() -> None:
    other = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 5))
    student = net(12, 1)
    before = parameters_of(student)
    with pytest.raises(TrainingError, match=r"outputs \[\[32, 4\]\] are not .* \[\[32, 5\]\]"):
        distill(student, other, loader())
    after = parameters_of(student)
    assert all(torch.equal(before[k], after[k]) for k in before if "1." not in k)
    assert other.training and student.training


def other_run(name: str) -> dict[str, Any]:
    teacher = net(24)
    if name == "teacher weights":
        with torch.no_grad():
            teacher[0].bias[0] += 1
    if name == "teacher":
        teacher = net(25)
    student = net(13, 1) if name == "student" else net(12, 1)
    options = {"loss": "kl"} if name == "loss" else {"seed": 5} if name == "seed" else {}
    return {"student": student, "teacher": teacher, **options}


@pytest.mark.parametrize("name", ["teacher weights", "teacher", "student", "loss", "seed"])
def test_checkpoints_of_other_runs_are_refused_and_stay(tmp_path: Path, name: str) -> None:
    file = tmp_path / "run.safetensors"
    distill(net(12, 1), net(24), loader(), epochs=1, checkpoint=file)
    before = file.read_bytes()
    mine = other_run(name)
    weights = parameters_of(mine["student"])
    with pytest.raises(TrainingError, match=f"another run: .*{name}"):
        distill(loader=loader(), checkpoint=file, **mine)
    assert file.read_bytes() == before
    assert same_state(parameters_of(mine["student"]), weights)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_damaged_checkpoints_are_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "run.safetensors"
    distill(net(12, 1), net(24), loader(), epochs=1, checkpoint=file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(TrainingError, match="not a whole checkpoint"):
        distill(net(12, 1), net(24), loader(), checkpoint=file)


@pytest.mark.parametrize(
    "note",
    [
        "[" * 100_000,
        "5",
        {"run": 5},
        {"progress": {"epoch": "two"}},
        {"progress": {"epoch": 1, "losses": 3}},
        {"numbers": {"x.y": 1}},
        {"numbers": [1]},
        {"groups": []},
        {"groups": 5},
    ],
    ids=str,
)
def test_checkpoints_whose_header_says_something_else(
    tmp_path: Path, note: str | dict[str, object]
) -> None:
    from safetensors import safe_open

    file = tmp_path / "run.safetensors"
    distill(net(12, 1), net(24), loader(), epochs=1, checkpoint=file)
    with safe_open(file, framework="pt") as held:
        good = json.loads(held.metadata()["cerewrite"])
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    text = note if isinstance(note, str) else json.dumps({**good, **note})
    save_file(tensors, file, metadata={"cerewrite": text[:200_000]})
    with pytest.raises(TrainingError, match="not a whole checkpoint"):
        distill(net(12, 1), net(24), loader(), epochs=1, checkpoint=file)


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        distill(net(12), net(24), loader(), epochs=1, checkpoint=tmp_path / "file" / "run")


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    distill(net(12, 1), net(24), loader(), epochs=2, checkpoint=file)
    with safe_open(file, framework="pt") as held:
        note = json.loads(held.metadata()["cerewrite"])
        names = set(held.keys())
    assert note["progress"]["epoch"] == 2
    assert {"student.0.weight", "best.0.weight", "optimiser.0.exp_avg"} <= names


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"patience": 0}, "patience 0"),
        ({"tolerance": 1.0}, "tolerance 1.0"),
        ({"loss": "mes"}, "unknown loss 'mes'"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        distill(net(12), net(24), loader(), **options)
    with pytest.raises(UsageError, match="nothing to train"):
        distill(net(12).requires_grad_(False), net(24), loader())


def test_a_rewritten_model_learns_from_its_original() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(24, 24), nn.Tanh())))
    x = torch.randn(256, 24)
    result = cerewrite.convert(
        teacher, x[:2], weights="transfer", calibration=x, estimator="analytic"
    )
    student = copy.deepcopy(result.model)
    done = cerewrite.distill(student, teacher, list(x.split(32)), epochs=5, patience=5)
    assert done.scores[-1] < done.scores[0] < result.verification.checks[-1].value


def test_every_member_is_taught_by_itself() -> None:
    """Taught together members divide the work; taught one by one each gives the teacher's."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(),
                            nn.Linear(64, 3))  # fmt: skip
    x = torch.randn(256, 6)
    errors = []
    for members in (False, True):
        student = cerewrite.convert(teacher, x[:2], members=4, estimator="analytic").model
        batches = [(part, None) for part in x.split(64)]
        result = distill(student, teacher, batches, epochs=60, patience=60, members=members)
        assert result.scores[-1] < 0.2 * result.scores[0] and student.training
        outputs = cerewrite.members(student.eval())(x).detach()
        wanted = teacher(x).detach()
        errors.append((outputs - wanted).norm() / (4**0.5 * wanted.norm()))
        assert (outputs.mean(0) - wanted).norm() < 0.3 * wanted.norm()
    assert errors[1] < 0.35 < 0.7 < errors[0]


def test_a_checkpoint_of_members_is_not_one_of_their_sum(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                            nn.Linear(64, 3))  # fmt: skip
    student = cerewrite.convert(teacher, torch.ones(2, 6), members=4, estimator="analytic").model
    batches, file = [torch.randn(8, 6)], tmp_path / "run.safetensors"
    distill(student, teacher, batches, epochs=1, checkpoint=file, members=True)
    again = distill(student, teacher, batches, epochs=2, checkpoint=file, members=True)
    assert again.resumed == 1
    with pytest.raises(TrainingError, match="members differ"):
        distill(student, teacher, batches, epochs=3, checkpoint=file)
    with pytest.raises(RewriteError, match="not a rewritten model"):
        distill(copy.deepcopy(teacher), teacher, batches, epochs=1, members=True)
