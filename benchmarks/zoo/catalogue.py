"""Which models the zoo holds: torchvision's, a selection of timm's, tiny ones of Hugging Face's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from benchmarks.zoo import hugging_face
from benchmarks.zoo.sources import torchvision_models

TIMM = 420
"""timm models that are taken, a few of every module."""

_HUGE = re.compile(
    r"giant|gigantic|huge|xxlarge|xlarge|_xl|_h(_|$|\d)|_g(_|$)|so400m|so150m|large|_l(_|$)|"
    r"_l\d|22k|128gf|160|320|640|1280|_7b|\d+b_|e2b|e4b|_b7|_b8|_f[456]|_d8|152|200|270|350|420|"
    r"in21k|_384|_448|_512|_1024|_m48|_m36|300m|_600m|_840m|_1b|_2b|r200|_s36|x48d|_base_.*clip"
)
"""Names of timm models that are large: their small sisters show the same operators."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the zoo.

    Attributes:
        name: unique name, ``source/model``.
        source: ``torchvision``, ``timm`` or ``transformers``.
        family: the module that defines it; the kind of model of Hugging Face's.
    """

    name: str
    source: str
    family: str

    @property
    def model(self) -> str:
        """The model's name in its source."""
        return self.name.partition("/")[2]


def catalogue(sources: Sequence[str] = ()) -> list[Entry]:
    """Every entry of the named sources, of all by default, in the order of `SOURCES`.

    Raises:
        ImportError: if a source is not installed.
    """
    return [entry for source in sources or SOURCES for entry in SOURCES[source]()]


def torchvision_entries() -> list[Entry]:
    """All that ``torchvision.models.list_models`` names."""
    models = torchvision_models()
    entries = []
    for name in models.list_models():
        module = models.get_model_builder(name).__module__
        family = module.removeprefix("torchvision.models.")
        entries.append(Entry(f"torchvision/{name}", "torchvision", family))
    return entries


def timm_entries(count: int = TIMM) -> list[Entry]:
    """So many of timm's models, in turn one of each module, small ones before large ones."""
    torchvision_models()  # timm imports torchvision
    import timm

    columns = []
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        small = [name for name in names if not _HUGE.search(name)]
        large = [name for name in names if _HUGE.search(name)]
        columns.append(
            [Entry(f"timm/{n}", "timm", module) for n in (*_spread(small), *_spread(large))]
        )
    rows = zip_longest(*columns)
    return [entry for row in rows for entry in row if entry is not None][:count]


def transformers_entries() -> list[Entry]:
    """Every tiny configuration of Hugging Face's architectures."""
    return [
        Entry(f"transformers/{name}", "transformers", kind)
        for kind, models in hugging_face.KINDS.items()
        for name in models
    ]


SOURCES: dict[str, Callable[[], list[Entry]]] = {
    "torchvision": torchvision_entries, "timm": timm_entries, "transformers": transformers_entries,
}  # fmt: skip
"""What lists the models of every source."""


def is_large(entry: Entry) -> bool:
    """Whether a model's name says that it is one of the large ones of its family."""
    return bool(_HUGE.search(entry.name))


def stratified(entries: Sequence[Entry], count: int) -> list[Entry]:
    """So many entries, in turn one of each family."""
    columns: dict[str, list[Entry]] = {}
    for entry in entries:
        columns.setdefault(f"{entry.source}/{entry.family}", []).append(entry)
    rows = zip_longest(*columns.values())
    return [entry for row in rows for entry in row if entry is not None][:count]


def _spread(names: Sequence[str]) -> list[str]:
    """The same names in an order whose every prefix is spread over the list: halves, quarters."""
    order: list[str] = []
    step = len(names)
    while step >= 1 and len(order) < len(names):
        order += [name for name in names[::step] if name not in order]
        step //= 2
    return order
