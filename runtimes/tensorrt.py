"""TensorRT 10 and 11 on NVIDIA GPUs: engines are built on the machine that runs them, and kept."""

from __future__ import annotations

from edgeface.runtimes.base import Runtime, RuntimeOptions
from edgeface.runtimes.nvidia import runtime

_NAME = "tensorrt"


def probe() -> str:
    """Return its version; see ``edgeface.runtimes.nvidia.runtime.probe`` for the errors."""
    return runtime.probe(_NAME)


def load(data: bytes, options: RuntimeOptions) -> Runtime:
    """Load an ONNX graph; see ``edgeface.runtimes.nvidia.runtime.load`` for the errors."""
    return runtime.load(_NAME, data, options)
