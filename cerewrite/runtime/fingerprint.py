"""The fingerprint of a model's structure: which plan belongs to which model."""

from __future__ import annotations

import hashlib
import re

from torch import nn
from torch.nn.parameter import is_lazy

from cerewrite.errors import LoadError

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's structure, in hexadecimal.

    It covers the name, type and options of every module and the name and shape of every
    parameter, aliases included. It does not depend on weights, device, dtype, train/eval mode,
    or where the model's source file lies (types outside torch count by their own name only).

    Args:
        model: the module.

    Raises:
        LoadError: if a module cannot say what its options are.

    Example:
        >>> fingerprint(nn.Linear(2, 3)) == fingerprint(nn.Linear(2, 3, device="meta").eval())
        True
        >>> fingerprint(nn.Linear(2, 3)) == fingerprint(nn.Linear(2, 4))
        False
    """
    digest = hashlib.sha256()
    first: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        alias = first.setdefault(id(module), name)
        options = _ADDRESS.sub("", _options(name, module))
        digest.update(repr((name, alias, _type_name(module), options)).encode())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        alias = first.setdefault(id(parameter), name)
        shape = None if is_lazy(parameter) else tuple(parameter.shape)
        digest.update(repr((name, alias, shape)).encode())
    return digest.hexdigest()


def class_name(model: nn.Module) -> str:
    """The name of a model's class, as an identifier.

    Example:
        >>> class_name(type("2 Nets", (nn.Module,), {})())
        '_2_Nets'
    """
    name = re.sub(r"\W", "_", type(model).__name__)
    return name if name.isidentifier() else f"_{name}"


def _options(name: str, module: nn.Module) -> str:
    try:
        return str(module.extra_repr())
    except Exception as error:
        raise LoadError(
            f"'{name}' ({type(module).__name__}): its extra_repr raised "
            f"{type(error).__name__}: {error}",
            advice="mend extra_repr, which tells models of other options apart",
        ) from error


def _type_name(module: nn.Module) -> str:
    kind = type(module)
    known = kind.__module__.partition(".")[0] in ("torch", "cerewrite")
    return f"{kind.__module__}.{kind.__qualname__}" if known else kind.__qualname__
