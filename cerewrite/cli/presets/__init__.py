"""Presets: what ``--for NAME`` sets. One file, one registration."""

from cerewrite.cli.presets.base import PRESETS, Preset, register

__all__ = ["PRESETS", "Preset", "register"]
