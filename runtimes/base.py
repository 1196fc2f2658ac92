"""The protocol between the detector and a backend, and the table of backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidOptionError

Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class RuntimeOptions:
    """What a backend needs beside the model's bytes.

    Attributes:
        input_size: fixed (width, height) of every frame, or None where sizes vary.
        input_sizes: sizes that a static artifact accepts; empty: any.
        exact: keep the artifact's own arithmetic; otherwise the backend may lower fp32 to what
            is fastest on the device (bf16 or fp16).
        threads: worker threads.
        cache_key: name of the model and its hash, for backends that cache compiled models.
    """

    input_size: tuple[int, int] | None
    input_sizes: tuple[tuple[int, int], ...]
    exact: bool
    threads: int
    cache_key: str


class Runtime(Protocol):
    """A loaded model.

    ``infer`` takes uint8 (N, H, W, 3) BGR frames, contiguous, and returns the graph's named
    outputs: ``logit_{stride}`` (N, H*W*A, 1), ``delta_{stride}`` (N, H*W*A, 4) and
    ``landmark_{stride}`` (N, H*W*A, 10), float32. The arrays are valid until the next call.
    """

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Run the graph. Raises InferenceError where the backend fails."""
        ...

    def describe(self) -> Mapping[str, str]:
        """Facts for ``explain()``: library version, device, precision that runs."""
        ...

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        ...


@dataclass(frozen=True)
class Backend:
    """A row in the table of backends.

    Attributes:
        name: what ``Detector(backend)`` takes.
        module: module with ``probe() -> str`` and ``load(data, options) -> Runtime``.
        extra: the extra of edgeface that installs it.
        format: artifact format that it loads.
    """

    name: str
    module: str
    extra: str | None
    format: str


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("tensorrt", "edgeface.runtimes.tensorrt", "tensorrt", "onnx"),
        Backend("openvino", "edgeface.runtimes.openvino", "openvino", "onnx"),
        Backend("tflite", "edgeface.runtimes.tflite", "tflite", "tflite"),
        Backend("onnxruntime", "edgeface.runtimes.onnxruntime", None, "onnx"),
    )
}


def backend(name: str) -> Backend:
    """Look a backend up by name; raises InvalidOptionError for an unknown one."""
    if name not in BACKENDS:
        raise InvalidOptionError(
            f"expected backend 'auto' or one of {', '.join(map(repr, BACKENDS))}, got {name!r}"
        )
    return BACKENDS[name]


def load(name: str, data: bytes, options: RuntimeOptions) -> Runtime:
    """Load a model on the named backend; its vendor library is imported here, not before.

    Raises:
        InvalidOptionError: unknown backend.
        MissingDependencyError: the vendor package is not installed.
        BackendUnavailableError: the package is there but cannot run on this machine.
        ModelIntegrityError: the backend rejects the model.
    """
    runtime: Runtime = import_module(backend(name).module).load(data, options)
    return runtime
