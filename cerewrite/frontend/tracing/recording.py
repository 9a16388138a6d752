"""A torch-function mode that writes down every operator that a forward calls.

Operators are seen where Python calls them, before they are decomposed: ``linear``, ``conv2d``,
``batch_norm``, as the other rungs see them. Functions of `torch.nn.functional` and the like that
are written in Python are entered, not recorded.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from cerewrite.frontend.tracing.calls import (
    LOOKS,
    acts_unit_by_unit,
    call_again,
    entered,
    is_python,
    joins,
    listed,
    memory,
    owned,
    target_of,
    tensors_in,
    type_name,
)
from cerewrite.frontend.tracing.indexing import index, is_basic
from cerewrite.ir import Length, Op, Ref
from cerewrite.kernel.constants import Literal


class Recording(TorchFunctionMode):
    """The operators that ran while the mode was on, in order.

    Args:
        model: the module that runs; its parameters and buffers are told apart by identity.

    Attributes:
        ops: what ran.
        combine: for operators that act unit by unit on several tensors, by name: the operator
            as a function of its operands.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.combine: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {}
        self._names = WeakIdKeyDictionary()
        self._stale = WeakIdKeyDictionary()
        self._shared: dict[int, list[Any]] = {}
        self._counts: Counter[str] = Counter()
        self._tainted: set[str] = set()
        self._modules = {id(m): name for name, m in model.named_modules()}
        self._owned = owned(model)
        self._calls: Counter[str] = Counter()
        self._stack: list[tuple[int, str, int]] = []
        self._kept: list[Any] = []
        self._inside: list[Any] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_python(func) and func not in self._inside:
            self._inside.append(func)  # it may hand itself over again, to be recorded then
            try:
                with self:
                    return entered(func)(*args, **kwargs)
            finally:
                self._inside.pop()
        if getattr(func, "__name__", "") == "__getitem__" and is_basic(args[1]):
            with self:
                return index(*args)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Size):
            return self._lengths(args[0], result)
        if getattr(func, "__name__", "") == "size" and isinstance(result, int):
            axis = int(args[1] if len(args) > 1 else kwargs["dim"]) % args[0].dim()
            return Length(result, [(self._name(args[0]), axis)])
        self._note(func, args, kwargs, result)
        return result

    def _lengths(self, tensor: Tensor, shape: torch.Size) -> torch.Size:
        """A shape whose numbers remember the axes that they were read off."""
        name = self._name(tensor)
        return torch.Size([Length(size, [(name, axis)]) for axis, size in enumerate(shape)])

    def inputs(self, tree: Any) -> None:
        """Note the tensors that the model is given."""
        for tensor in tensors_in(tree):
            self._end(tensor, "input", "")

    def output(self, tensors: Iterable[Tensor]) -> None:
        """Note the tensors that the model returns."""
        names = tuple(self._name(tensor) for tensor in tensors)
        self.ops.append(Op("output", "output", names, ()))

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module's forward begins; one that is not part of the model counts as its caller."""
        known = self._modules.get(id(module))
        name = known if known is not None else self._stack[-1][1] if self._stack else ""
        call = self._calls[name] if known is not None else 0
        self._calls[name] += known is not None
        self._stack.append((id(module), name, call))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """A module's forward ends; what it returns unseen (a script) depends on what it read."""
        found = next((i for i in reversed(range(len(self._stack)))
                      if self._stack[i][0] == id(module)), None)  # fmt: skip
        if found is None:
            return
        unseen = [t for t in tensors_in(output) if t not in self._names and not self._is_own(t)]
        if unseen:
            inputs = tuple(self._name(tensor) for tensor in tensors_in(args))
            for tensor in unseen:
                self._add(type(module).__name__, inputs, tensor, (), {})
        del self._stack[found:]

    def _note(self, func: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        target, inplace = target_of(func)
        results = [item for item in listed(result) if isinstance(item, Tensor)]
        read = tensors_in((args, kwargs))
        if target == "setitem":
            results, inplace = [args[0]], True
        if not results:
            if target in LOOKS:
                self._look(target, read)
            return
        if not inplace and any(result is tensor for tensor in read):
            return  # the identity: nothing happened
        inputs = tuple(self._name(tensor) for tensor in read)
        refer = functools.partial(pytree.tree_map_only, Tensor, lambda t: Ref(self._name(t)))
        given, named = refer(args), refer(dict(kwargs))
        if isinstance(result, Tensor) or target == "setitem":
            function = self._function(func, args, kwargs, target, read, result)
            op = self._add(target, inputs, results[0], given, named, function)
            if function is None and joins(target, read, result):
                self.combine[op.name] = functools.partial(call_again, func, args, kwargs)
        else:
            whole = self._add(target, inputs, None, given, named)
            for index, item in enumerate(listed(result)):
                if isinstance(item, Tensor):
                    self._add("getitem", (whole.name,), item, (Ref(whole.name), index), {})
        if inplace:
            self._spread(results[0])

    def _add(
        self,
        target: str,
        inputs: tuple[str, ...],
        result: Tensor | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        function: Callable[..., Any] | None = None,
    ) -> Op:
        """Note an operator and bind its result to it."""
        _, module, call = self._stack[-1] if self._stack else (0, "", 0)
        op = Op(
            name=self._fresh(target),
            target=target,
            inputs=inputs,
            shape=() if result is None else tuple(result.shape),
            module=module,
            call=call,
            args=args,
            kwargs=dict(kwargs),
            function=function,
            dtype="" if result is None else type_name(result),
        )
        self.ops.append(op)
        if any(name in self._tainted for name in inputs):
            self._tainted.add(op.name)
        if result is not None:
            self._bind(result, op.name)
        return op

    def _look(self, target: str, read: Sequence[Tensor]) -> None:
        """Values go to Python: what runs next may depend on them, unless they are constants."""
        inputs = tuple(self._name(tensor) for tensor in read)
        if any(name in self._tainted for name in inputs):
            module = self._stack[-1][1] if self._stack else ""
            self.ops.append(
                Op(self._fresh("host_read"), "host_read", inputs, (), module, args=(target,))
            )

    def _spread(self, changed: Tensor) -> None:
        """An operator in place changed every other view of its memory too."""
        name = self._names[changed]
        for other in self._views(changed):
            if other is changed:
                continue
            if other.shape == changed.shape and other.stride() == changed.stride():
                self._names[other] = name
            else:
                self._stale[other] = name

    def _function(
        self, func: Any, args: Any, kwargs: Any, target: str, read: Sequence[Tensor], result: Any
    ) -> Callable[[Tensor], Tensor] | None:
        """The operator as a function of its one tensor, where it acts unit by unit."""
        if len(read) != 1 or target == "setitem" or not acts_unit_by_unit(target):
            return None
        if tuple(read[0].shape) != tuple(result.shape):
            return None
        call = functools.partial(call_again, func, args, kwargs)
        return lambda tensor: call([tensor])

    def _name(self, tensor: Tensor) -> str:
        """The operator whose result a tensor is; parameters and constants on first sight."""
        if tensor in self._stale:
            written = self._stale[tensor]
            del self._stale[tensor]
            self._add("write_through_view", (self._names[tensor], written), tensor, (), {})
        if tensor not in self._names:
            kind, name = self._owned.get(id(tensor), ("constant", ""))
            self._end(tensor, kind, name)
        found: str = self._names[tensor]
        return found

    def _end(self, tensor: Tensor, target: str, module: str) -> None:
        seen = target == "constant" and not module and not isinstance(tensor, FakeTensor)
        with unset_fake_temporarily():  # a plain attribute keeps its values
            given = (Literal(tensor.detach().clone()),) if seen else ()
        shape = tuple(tensor.shape)
        op = Op(self._fresh(target), target, (), shape, module, args=given, dtype=type_name(tensor))
        self.ops.append(op)
        if target != "constant":
            self._tainted.add(op.name)
        self._bind(tensor, op.name)
        self._kept.append(tensor)

    def _is_own(self, tensor: Tensor) -> bool:
        return id(tensor) in self._owned

    def _fresh(self, target: str) -> str:
        self._counts[target] += 1
        number = self._counts[target] - 1
        return f"{target}_{number}" if number else target

    def _bind(self, tensor: Tensor, name: str) -> None:
        if tensor not in self._names:
            self._shared.setdefault(memory(tensor), []).append(ref(tensor))
        self._names[tensor] = name

    def _views(self, tensor: Tensor) -> list[Tensor]:
        alive = [found() for found in self._shared.get(memory(tensor), ())]
        return [other for other in alive if other is not None]
