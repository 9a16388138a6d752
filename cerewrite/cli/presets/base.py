"""What a preset is: defaults of options that exist, each with the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cerewrite.registry import Registry


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults for one purpose; an option that is given, or stands in the file, wins.

    Attributes:
        name: what ``--for`` takes.
        purpose: who it is for, in one line.
        options: long option without dashes, its value as ``cerewrite.toml`` holds it, and why.
    """

    name: str
    purpose: str
    options: tuple[tuple[str, Any, str], ...]


PRESETS: Registry[Preset] = Registry("preset", "cerewrite.cli.presets")


def register(preset: Preset) -> Preset:
    """Add a preset under its name."""
    return PRESETS.register(preset.name, preset)
