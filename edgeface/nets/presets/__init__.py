"""Presets: one module per system, one function per preset."""

from edgeface.nets.presets import df2s2, fanet, isrn, nano, refineface, retinaface  # noqa: F401
from edgeface.nets.registry import build, find_preset, presets

__all__ = ["build", "find_preset", "presets"]
