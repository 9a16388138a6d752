"""What a model's file offers a race besides its model: a factory to call again, data, a loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cerewrite.errors import LoadError
from cerewrite.frontend.loading import running, search
from cerewrite.frontend.loading.spec import split_spec
from cerewrite.runtime.alone import in_turn

DATA, TEST, LOSS = "training_data", "test_data", "loss"
"""Names that a model's file may define."""


@dataclass(frozen=True, slots=True)
class Home:
    """A file or a module, run once.

    Attributes:
        shown: its name in messages.
        path: of a file.
        module: what it defines.
    """

    shown: str
    path: Path | None
    module: ModuleType

    @classmethod
    def of(cls, spec: str, *, root: str | os.PathLike[str] = ".") -> Home:
        """Run a file, or import a module.

        Args:
            spec: ``path/model.py[:name]`` or ``package.module:name``; the name does not matter.
            root: folder from which relative paths, and modules, are looked up first.

        Raises:
            LoadError: if it does not exist, or raises.

        Example:
            >>> Home.of("torch.nn:Flatten").shown
            'torch.nn'
        """
        shown, _ = split_spec(spec)
        if not shown.endswith(".py"):
            with in_turn(), running.on_path(Path(os.path.abspath(root)), Path.cwd()):
                return cls(shown, None, running.import_module(shown, spec))
        path = Path(os.path.abspath(Path(root) / shown))
        running.check_file(path, shown)
        with in_turn(), running.importable(path.parent):
            return cls(shown, path, running.run_file(path, shown))

    def factory(self, name: str = "") -> Any:
        """What makes the model, to be called for every seed; an instance is given as it is.

        Raises:
            LoadError: see `cerewrite.frontend.loading.load`.
        """
        if name or self.path is None:
            found = search.named(self.module, name, self.shown)
        else:
            found = search.only_model(self.module, self.shown)
        if found.kind == "instance":
            return found.item

        def make() -> Any:
            with self._reach():
                return search.build(found, self.shown, self.path)

        return make

    def data(self, name: str, *, needed: bool = True) -> Any:
        """What a function of that name gives, or the value itself; None if it may be missing.

        Raises:
            LoadError: if it is missing, raises, or gives no data.
        """
        item = self._item(name, needed, "training data", "--data")
        if item is None:
            return None
        given = self._called(name, item) if callable(item) else item
        if not isinstance(given, Iterable):
            raise LoadError(
                f"{self.shown}:{name}: gives an object of type {type(given).__name__}, not data",
                advice="return (inputs, targets), or a list or DataLoader of such batches",
            )
        return given

    def loss(self, name: str = LOSS) -> Callable[[Any, Any], Any]:
        """A function of outputs and targets: the one of that name, or what it gives when called.

        Raises:
            LoadError: if it is missing, raises, or is no function.
        """
        item = self._item(name, True, "loss", "--loss")
        if isinstance(item, type) or (
            search.kind_of(item) == "factory" and not search.needed(item)
        ):
            item = self._called(name, item)
        if not callable(item):
            raise LoadError(
                f"{self.shown}:{name}: is of type {type(item).__name__}, not a loss",
                advice="define a function of outputs and targets, or return one, such as "
                "torch.nn.CrossEntropyLoss()",
            )
        found: Callable[[Any, Any], Any] = item
        return found

    def _item(self, name: str, needed: bool, what: str, option: str) -> Any:
        if hasattr(self.module, name.partition(".")[0]):
            return search.named(self.module, name, self.shown).item
        if not needed:
            return None
        raise LoadError(
            f"{self.shown}: defines no '{name}'",
            advice=f"define {name}() there, or name the {what} with {option} MODULE:FUNCTION",
        )

    def _called(self, name: str, item: Callable[[], Any]) -> Any:
        try:
            with self._reach():
                return item()
        except (Exception, SystemExit) as error:
            raise running.failure(f"{self.shown}:{name}: raised", error, self.path) from error

    def _reach(self) -> AbstractContextManager[None]:
        """What the code may import while it runs."""
        if self.path is not None:
            return running.importable(self.path.parent)
        return running.on_path(Path.cwd())
