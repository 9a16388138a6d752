"""Find the factory in a module, and call it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from cerewrite.errors import LoadError
from cerewrite.frontend.loading.running import failure
from cerewrite.ir.inputs import Inputs
from cerewrite.registry import suggest

PREFERRED = "build_model"
INPUTS = "example_inputs"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that can yield a model: its name, what it is, and the thing itself."""

    name: str
    kind: str
    item: Any


def named(home: ModuleType, name: str, shown: str) -> Candidate:
    """The factory, class or instance of that (dotted) name.

    Raises:
        LoadError: if there is none, with a near miss.
    """
    try:
        item = reduce(getattr, name.split("."), home)
    except AttributeError:
        public = {key: None for key in vars(home) if not key.startswith("_")}
        raise LoadError(f"{shown}: defines no '{name}'", advice=_hint(name, public)) from None
    return Candidate(name, kind_of(item), item)


def _hint(name: str, public: dict[str, None]) -> str:
    near = suggest(name, public)
    return near if len(public) < 40 else near.partition(" (choices")[0][:80]


def only_model(home: ModuleType, shown: str) -> Candidate:
    """The one thing in a model file that yields a model without arguments.

    Raises:
        LoadError: if there are several or none; the message lists what was found.
    """
    preferred = vars(home).get(PREFERRED)
    if callable(preferred) and not needed(preferred):
        return Candidate(PREFERRED, "factory", preferred)
    found = list(_candidates(home))
    ready = [item for item in found if item.kind == "instance" or not needed(item.item)]
    instances = {type(item.item) for item in ready if item.kind == "instance"}
    ready = [item for item in ready if item.item not in instances]
    if len(ready) == 1:
        return ready[0]
    if ready:
        listed = ", ".join(f"{item.kind} {item.name}" for item in ready)
        raise LoadError(
            f"{shown}: {len(ready)} things in it yield a model: {listed}",
            advice=f"name one, as in {shown}:{ready[0].name}, or call it {PREFERRED}",
        )
    needy = [f"{item.kind} {item.name} (needs {', '.join(needed(item.item))})" for item in found]
    listed = "found only " + ", ".join(needy) if needy else "found no function and no nn.Module"
    raise LoadError(
        f"{shown}: nothing in it yields a model without arguments: {listed}",
        advice=f"add a function `def {PREFERRED}():` that returns the model",
    )


def _candidates(home: ModuleType) -> Iterator[Candidate]:
    """Public functions, module classes and module instances that the file itself defines."""
    from torch import nn

    seen: set[int] = set()
    for name, item in vars(home).items():
        if name.startswith("_") or name == INPUTS or id(item) in seen:
            continue
        own = getattr(item, "__module__", None) == home.__name__
        if isinstance(item, type):
            wanted = own and issubclass(item, nn.Module) and not inspect.isabstract(item)
        elif isinstance(item, FunctionType):
            wanted = own and _may_return_module(item)
        else:
            wanted = isinstance(item, nn.Module | partial)
        if wanted:
            seen.add(id(item))
            yield Candidate(name, kind_of(item), item)


def kind_of(item: Any) -> str:
    """In one word: an ``instance`` of a module, a ``class``, or a ``factory``."""
    from torch import nn

    if isinstance(item, nn.Module):
        return "instance"
    return "class" if isinstance(item, type) else "factory"


def _may_return_module(function: FunctionType) -> bool:
    """Whether a function's return annotation, if it has one, allows a module."""
    from torch import nn

    returns: Any = function.__annotations__.get("return", nn.Module)
    if isinstance(returns, str):
        returns = function.__globals__.get(returns.rpartition(".")[2], returns)
    if isinstance(returns, type):
        return issubclass(returns, nn.Module)
    return returns is not None and returns not in ("None", "int", "float", "str", "bool")


def needed(item: Any) -> list[str]:
    """Names of the arguments that a callable cannot do without."""
    try:
        parameters = inspect.signature(item).parameters.values()
    except (TypeError, ValueError):
        return []
    loose = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in loose]


def build(found: Candidate, shown: str, path: Path | None = None) -> Any:
    """The model that a candidate yields.

    Raises:
        LoadError: if it needs arguments, raises, or yields something else.
    """
    from torch import nn

    if found.kind == "instance":
        return found.item
    where = f"{shown}:{found.name}"
    if not callable(found.item):
        raise LoadError(
            f"{where}: is of type {type(found.item).__name__}, neither a factory nor an nn.Module",
            advice="name a zero-argument function or class, or an nn.Module instance",
        )
    missing = needed(found.item)
    if missing:
        raise LoadError(
            f"{where}: needs arguments: {', '.join(missing)}",
            advice="wrap it in a function without arguments, and name that one",
        )
    try:
        module = found.item()
    except (Exception, SystemExit) as error:
        raise failure(f"{where}: the {found.kind} raised", error, path) from error
    if not isinstance(module, nn.Module):
        raise LoadError(
            f"{where}: returned an object of type {type(module).__name__}, not an nn.Module",
            advice="return the model itself",
        )
    return module


def example_inputs(home: ModuleType, shown: str, path: Path) -> Inputs | None:
    """What ``example_inputs`` in a model file gives: a tuple, a dict, or None without one.

    Raises:
        LoadError: if it raises, needs arguments, or yields something else.
    """
    from torch import Tensor

    given = vars(home).get(INPUTS)
    if given is None:
        return None
    if callable(given):
        try:
            given = given()
        except (Exception, SystemExit) as error:
            raise failure(f"{shown}:{INPUTS}: raised", error, path) from error
    if isinstance(given, Tensor):
        return (given,)
    if isinstance(given, tuple | list) and given:
        return tuple(given)
    if isinstance(given, dict) and given:
        return given
    raise LoadError(
        f"{shown}:{INPUTS}: is of type {type(given).__name__}, not a tensor, tuple or dict",
        advice="return a tensor, a tuple of positional inputs, or a dict of keyword inputs",
    )
