"""Which modules may be swapped for another, and why not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from cerewrite.ir import Op, Rejection
from cerewrite.ops.own_forwards import bound_to_width, has_own_forward, unlike
from cerewrite.ops.standardised import STANDARDISED, untold
from cerewrite.runtime.copies import carries_hooks, hooked, overlaps

_COMPUTED_FROM = ("weight_g", "weight_orig")
"""What weight norm, and spectral norm or pruning, of the kind that uses hooks leave on a module."""

_SETTINGS = {"weight", "bias"}

_TYPES = ("to", "type_as")
"""Operators that take nothing but its type from a second tensor."""

_QUANTISED = ("torch.ao.nn", "torch.nn.quantized", "torch.nn.qat", "torch.nn.intrinsic")


def quantised(name: str, module: nn.Module) -> Rejection:
    """A layer in low precision has no weights that could be drawn."""
    return Rejection(
        name,
        "quantised",
        f"{type(module).__qualname__} keeps its weight in low precision",
        "convert the model in floating point, then quantise the result",
    )


class ModuleTable:
    """Facts about the modules of one model that decide whether they may be swapped.

    Args:
        model: the traced model.
        ops: its operators.
    """

    def __init__(self, model: nn.Module, ops: Sequence[Op]) -> None:
        self._model = model
        self._owners = Counter(
            id(parameter)
            for module in dict.fromkeys(model.modules())
            for parameter in module._parameters.values()
            if parameter is not None
        )
        for group in overlaps(model):
            for tensor in group:
                self._owners[tensor] += 1
        values = (op.inputs[:1] if op.target in _TYPES else op.inputs for op in ops)
        reads = Counter(name for inputs in values for name in inputs)
        self._held: dict[str, set[str]] = defaultdict(set)
        for op in ops:
            if op.target in ("parameter", "constant"):
                self._held[op.module.rpartition(".")[0]].add(op.name)
        self._all_reads = reads
        self._scalars = {op.name for op in ops if op.target == "constant" and op.numel == 1}
        self._same: Counter[tuple[str, str]] = Counter((op.module, op.target) for op in ops)
        self._runs = Counter(name for name, _ in {(op.module, op.call) for op in ops})
        self._reads = {op.name: reads[op.name] for op in ops if op.target == "parameter"}
        self._parameters = {op.name: op.module for op in ops if op.target == "parameter"}
        self._buffers = {op.name: op.module for op in ops if op.target == "constant"}
        self._shapes = {op.name: op.shape for op in ops}
        self._calls: Counter[str] = Counter(
            op.module for op in ops if op.target not in ("parameter", "constant")
        )

    def module(self, name: str) -> nn.Module | None:
        """The module of a qualified name; None for the model itself."""
        return self._model.get_submodule(name) if name else None

    def unknown(self, op: Op) -> Rejection:
        """Why an operator without a rule bounds what it reads."""
        where = op.module or op.name
        module = self.module(op.module)
        if module is not None and type(module).__module__.startswith(_QUANTISED):
            return quantised(where, module)
        reason = f"no rule knows the operator '{op.target}'"
        return Rejection(where, "unknown-operator", reason, "register a rule for it")

    def runs(self, name: str) -> int:
        """How often a module is called."""
        return self._runs[name]

    def parameter(self, node: str) -> nn.Parameter:
        """The parameter behind a ``parameter`` operator."""
        return self._model.get_parameter(self._parameters[node])

    def parameter_name(self, node: str) -> str | None:
        """Its qualified name; None if the operator is no parameter."""
        return self._parameters.get(node)

    def numel(self, name: str) -> int:
        """Elements of a parameter."""
        return self._model.get_parameter(name).numel()

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a parameter."""
        return tuple(self._model.get_parameter(name).shape)

    def is_standalone(self, node: str) -> bool:
        """Whether a parameter is a plain one that a single operator reads, and not tied."""
        name = self._parameters[node]
        owner = self._model.get_submodule(name.rpartition(".")[0])
        parameter = self._model.get_parameter(name)
        return (
            type(parameter) is nn.Parameter
            and not parametrize.is_parametrized(owner)
            and "parametrizations." not in name
            and self._owners[id(parameter)] == 1
            and not hooked(parameter)
            and self._reads[node] == 1
        )

    def weight(self, op: Op) -> Tensor | None:
        """The weight that a layer reads; None if it is computed from no module's own."""
        module = self.module(op.module)
        own = getattr(module, "weight", None)
        if len(op.inputs) < 2:
            return own if isinstance(own, Tensor) else None
        read = self._tensor(op.inputs[1])
        if read is not None:
            return read
        alike = isinstance(own, Tensor) and own.shape == self._shapes[op.inputs[1]]
        return own if alike else None

    def bias(self, op: Op) -> Tensor | None:
        """The bias that a layer reads, if any."""
        if len(op.inputs) == 2:
            return None
        if len(op.inputs) > 2:
            return self._tensor(op.inputs[2])
        bias = getattr(self.module(op.module), "bias", None)
        return bias if isinstance(bias, Tensor) else None

    def _tensor(self, node: str) -> Tensor | None:
        """A parameter or buffer; None for what is computed, and for constants of a trace."""
        if node in self._parameters:
            return self.parameter(node)
        name = self._buffers.get(node)
        if not name:
            return None
        try:
            return self._model.get_buffer(name)
        except AttributeError:
            return None

    def refusal(
        self,
        op: Op,
        types: Sequence[type[nn.Module]],
        *,
        once: bool = True,
        forwards: bool = False,
    ) -> Rejection | None:
        """Why the module that ran ``op`` may not be swapped; None when it may.

        Args:
            op: an operator that reads parameters.
            types: the module types that can be rebuilt at another width, subclasses that keep
                their forward included.
            once: whether the module must be this one operator and no more.
            forwards: whether subclasses with a forward of their own can be rebuilt too; that
                forward must read its parameters and buffers in this operator alone.
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
        own = forwards and has_own_forward(module, types)
        why = self._unlike_inside(op, module, types) if own else unlike(module, types)
        if op.target in ("linear", "linear_turned") and why is not None and self._is_product(op):
            why = None
        uses = self._same[op.module, op.target] if own else self._calls[op.module]
        return self._refuse_module(op.module, module, types, why) or self._refuse_sharing(
            op, module, uses if once else 0
        )

    def refusal_whole(self, op: Op, module: nn.Module) -> Rejection | None:
        """Why a module may not be swapped for one that calls it member by member."""
        why = None
        settings = list(module.parameters(recurse=False))
        more = len(settings) < len(list(module.parameters())) or any(True for _ in module.buffers())
        if more or any(p.dim() != 1 for p in settings):
            why = "holds more than one setting per channel"
        return self._refuse_module(op.module, module, (type(module),), why) or self._refuse_sharing(
            op, module, self._same[op.module, op.target]
        )

    def _is_product(self, op: Op) -> bool:
        """Whether a module holds a weight and perhaps a bias, and is one product with them."""
        module = self.module(op.module)
        assert module is not None
        weight = module._parameters.get("weight")
        alone = not (module._modules or module._buffers or set(module._parameters) - _SETTINGS)
        names = [self.parameter_name(node) for node in op.inputs[1:]]
        full = [f"{op.module}.{name}" for name, p in module._parameters.items() if p is not None]
        plain = weight is not None and weight.dim() == 2 and "forward" not in vars(module)
        return (
            alone
            and plain
            and names == sorted(full, reverse=True)
            and self._calls[op.module] == self.runs(op.module)
        )

    def _unlike_inside(
        self, op: Op, module: nn.Module, types: Sequence[type[nn.Module]]
    ) -> str | None:
        """Why a forward of its own does not use its values as the stock module does."""
        why = bound_to_width(module, types)
        held = self._held[op.module]
        held -= self._scalars
        uses = self._same[op.module, op.target]
        if why is None and any(self._all_reads[n] > op.inputs.count(n) * uses for n in held):
            why = f"overrides forward, and '{op.target}' is not all that reads its values"
        weight = module._parameters["weight"]
        read = [self.parameter(node) for node in op.inputs if node in self._parameters]
        if why is None and weight is not None and all(weight is not found for found in read):
            why = f"overrides forward, and '{op.target}' does not read its weight itself"
        if why is None and STANDARDISED in (op.kwargs or {}):
            why = untold(module)
        return why

    def _owns(self, op: Op, module: nn.Module) -> bool:
        """Whether all parameters that an operator reads are the module's own."""
        own = {id(parameter) for parameter in module._parameters.values()}
        read = [node for node in op.inputs if node in self._parameters]
        return all(id(self.parameter(node)) in own for node in read)

    def _refuse_module(
        self, name: str, module: nn.Module, types: Sequence[type[nn.Module]], why: str | None
    ) -> Rejection | None:
        if isinstance(module, LazyModuleMixin):
            return Rejection(
                name, "lazy", "its shapes are not known yet", "run the model once first"
            )
        if type(module).__module__.startswith(_QUANTISED):
            return quantised(name, module)
        if parametrize.is_parametrized(module) or any(hasattr(module, n) for n in _COMPUTED_FROM):
            return Rejection(
                name,
                "parametrised",
                "its weight is computed from other parameters",
                "remove the parametrisation first and put it back afterwards",
            )
        if why is not None:
            return Rejection(
                name,
                "custom-module",
                f"{type(module).__qualname__} {why}",
                f"use the stock {(*types, nn.Linear)[0].__name__}, or register a rule for it",
            )
        if any(parameter.is_complex() for parameter in module.parameters(recurse=False)):
            return Rejection(
                name, "complex", "its weights are complex", "split real and imaginary parts"
            )
        if carries_hooks(module):
            return Rejection(
                name,
                "hooked",
                "it, or a parameter of it, carries hooks that would be lost",
                "remove the hooks first and put them back afterwards",
            )
        return None

    def _refuse_sharing(self, op: Op, module: nn.Module, uses: int) -> Rejection | None:
        """Why a module that is used elsewhere too may not be swapped.

        Args:
            op: an operator that it ran.
            module: the module.
            uses: operators that it is, in all its calls; 0 where they may be several a call.
        """
        name, calls = op.module, self._runs[op.module]
        if uses > calls:
            return Rejection(
                name,
                "shared",
                f"the module is used {uses} times in {calls} calls",
                "use one module per call",
            )
        tied = [p for p in module._parameters.values() if p is not None]
        if any(self._owners[id(p)] > 1 for p in tied) or any(
            self._reads.get(node, 1) > max(calls, 1) for node in op.inputs
        ):
            return Rejection(
                name,
                "tied",
                "a parameter of it is used in another place too",
                "untie the parameter",
            )
        return None
