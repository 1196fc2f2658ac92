"""The torch wing's nets: backbone x neck x context x head, composed by presets."""

from edgeface.errors import missing_extra

try:
    import safetensors  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise missing_extra(error.name or "torch", "convert") from error

from edgeface.nets.detector import DetectorNet
from edgeface.nets.presets import build, find_preset, presets

__all__ = ["DetectorNet", "build", "find_preset", "presets"]
