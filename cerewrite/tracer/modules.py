"""Which modules may be swapped for another, and why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from cerewrite.ir import Op, Rejection
from cerewrite.surgery.keeping import unlike


class ModuleTable:
    """Facts about the modules of one model that decide whether they may be swapped.

    Args:
        model: the traced model.
        ops: its operators.
    """

    def __init__(self, model: nn.Module, ops: Sequence[Op]) -> None:
        self._model = model
        self._names = Counter(
            id(module) for _, module in model.named_modules(remove_duplicate=False)
        )
        self._owners = Counter(
            id(parameter)
            for module in dict.fromkeys(model.modules())
            for parameter in module._parameters.values()
            if parameter is not None
        )
        reads = Counter(name for op in ops for name in op.inputs)
        self._reads = {op.name: reads[op.name] for op in ops if op.target == "parameter"}
        self._parameters = {op.name: op.module for op in ops if op.target == "parameter"}
        self._calls: Counter[str] = Counter(
            op.module for op in ops if op.target not in ("parameter", "constant")
        )

    def module(self, name: str) -> nn.Module | None:
        """The module of a qualified name; None for the model itself."""
        return self._model.get_submodule(name) if name else None

    def parameter(self, node: str) -> nn.Parameter:
        """The parameter behind a ``parameter`` operator."""
        return self._model.get_parameter(self._parameters[node])

    def parameter_name(self, node: str) -> str | None:
        """Its qualified name; None if the operator is no parameter."""
        return self._parameters.get(node)

    def is_free(self, node: str) -> bool:
        """Whether a parameter is a plain one that a single operator reads, and not tied."""
        name = self._parameters[node]
        owner = self._model.get_submodule(name.rpartition(".")[0])
        parameter = self._model.get_parameter(name)
        return (
            type(parameter) is nn.Parameter
            and not parametrize.is_parametrized(owner)
            and "parametrizations." not in name
            and self._owners[id(parameter)] == 1
            and self._names[id(owner)] == 1
            and self._reads[node] == 1
        )

    def refusal(
        self, op: Op, types: Sequence[type[nn.Module]], *, once: bool = True
    ) -> Rejection | None:
        """Why the module that ran ``op`` may not be swapped; None when it may.

        Args:
            op: an operator that reads parameters.
            types: the module types that can be rebuilt at another width, subclasses that keep
                their forward included.
            once: whether the module must be this one operator, called once.
        """
        module = self.module(op.module)
        if module is None or not self._owns(op, module):
            name = next(filter(None, map(self.parameter_name, op.inputs)), op.name)
            return Rejection(
                name,
                "used-outside-its-module",
                f"the weight '{name}' is used by '{op.module or 'the model'}' itself, "
                "not by a layer's own forward",
                "call the layer instead of reading its weight",
            )
        return self._refuse_module(op.module, module, types) or self._refuse_sharing(
            op, module, once
        )

    def _owns(self, op: Op, module: nn.Module) -> bool:
        """Whether all parameters that an operator reads are the module's own."""
        own = {id(parameter) for parameter in module._parameters.values()}
        read = [node for node in op.inputs if node in self._parameters]
        return all(id(self.parameter(node)) in own for node in read)

    def _refuse_module(
        self, name: str, module: nn.Module, types: Sequence[type[nn.Module]]
    ) -> Rejection | None:
        if isinstance(module, LazyModuleMixin):
            return Rejection(
                name, "lazy", "its shapes are not known yet", "run the model once first"
            )
        if parametrize.is_parametrized(module) or hasattr(module, "weight_g"):
            return Rejection(
                name,
                "parametrised",
                "its weight is computed from other parameters",
                "remove the parametrisation first and put it back afterwards",
            )
        why = unlike(module, types)
        if why is not None:
            return Rejection(
                name,
                "custom-module",
                f"{type(module).__qualname__} {why}",
                f"use the stock {types[0].__name__}, or register a rule for this module",
            )
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            return Rejection(
                name,
                "hooked",
                "it carries hooks that would be lost",
                "remove the hooks first and put them back afterwards",
            )
        return None

    def _refuse_sharing(self, op: Op, module: nn.Module, once: bool) -> Rejection | None:
        name = op.module
        if self._names[id(module)] > 1:
            return Rejection(
                name,
                "aliased",
                "the module is registered under several names",
                "register it once",
            )
        if once and self._calls[name] > 1:
            return Rejection(
                name,
                "shared",
                f"the module is called {self._calls[name]} times in one forward",
                "use one module per call",
            )
        tied = [p for p in module._parameters.values() if p is not None]
        if any(self._owners[id(p)] > 1 for p in tied) or any(
            self._reads.get(node, 1) > 1 for node in op.inputs
        ):
            return Rejection(
                name,
                "tied",
                "a parameter of it is used in another place too",
                "untie the parameter",
            )
        return None
