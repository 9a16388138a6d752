"""Integers that modules hold and name widths by: heads, hidden sizes, fields of configurations."""

from __future__ import annotations

from torch import nn
from typing_extensions import override

from cerewrite.errors import RewriteError
from cerewrite.nn import NumberModule
from cerewrite.ops.base import register
from cerewrite.ops.cases import module_case
from cerewrite.ops.modules import Draw, ResizableModule


@register
class HeldNumber(ResizableModule):
    """An integer attribute by which a forward names a width: as many as all members have.

    Example:
        >>> heads = HeldNumber().resize(NumberModule(12), multiplicity=4, width=2)
        >>> heads.value, HeldNumber().member(heads, 0, 4).value
        (8, 2)
    """

    name = "number"
    modules = (NumberModule,)
    cases = (module_case(lambda: NumberModule(4)),)

    @override
    def resize(self, module: nn.Module, multiplicity: int, width: int) -> nn.Module:
        if not isinstance(module, NumberModule):
            raise RewriteError(
                f"a {type(module).__name__} is no number", advice="make the plan again"
            )
        return NumberModule(multiplicity * width)

    @override
    def member(self, module: nn.Module, index: int, multiplicity: int) -> nn.Module:
        assert isinstance(module, NumberModule)
        return NumberModule(module.value // multiplicity)

    @override
    def perturb(self, module: nn.Module, normal: Draw, uniform: Draw) -> None:
        """A number stays what it is."""
