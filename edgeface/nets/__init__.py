"""The torch wing's nets: backbone x neck x context x head, composed by presets."""

from edgeface.nets.detector import DetectorNet
from edgeface.nets.presets import build, presets

__all__ = ["DetectorNet", "build", "presets"]
