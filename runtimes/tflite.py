"""LiteRT, the successor of TensorFlow Lite, on the CPU through XNNPACK.

A file holds one signature whose input can be resized, or one signature per input size; the
signatures share their weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import ModelIntegrityError
from edgeface.runtimes.base import (
    INPUT,
    Outputs,
    RuntimeOptions,
    backend,
    check_frames,
    check_graph,
    closed,
    failed,
    import_vendor,
    rejected,
)

_NAME = "tflite"

Size = tuple[int, int]
ANY_SIZE = (-1, -1)


def probe() -> str:
    """Import the interpreter and return the package's version."""
    import_vendor(_NAME, ".interpreter")
    return _version()


def load(data: bytes, options: RuntimeOptions) -> LiteRT:
    """Load a TFLite file from its bytes.

    Raises:
        MissingDependencyError: neither ai-edge-litert nor tflite-runtime is installed.
        BackendUnavailableError: the package is there but does not import.
        ModelIntegrityError: the file cannot be loaded, breaks the graph contract, or lacks a
            size that its manifest lists.
    """
    vendor = import_vendor(_NAME, ".interpreter")
    try:
        streams = [
            _runners(vendor.Interpreter(model_content=data, num_threads=options.threads_per_stream))
            for _ in range(options.streams)
        ]
    except Exception as error:
        raise rejected(_NAME, error) from error
    return LiteRT(streams, options)


def _runners(interpreter: Any) -> list[Any]:
    return [interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()]


def _version() -> str:
    try:
        return version(backend(_NAME).installed_package() or "")
    except PackageNotFoundError:
        return "unknown"


def _size(runner: Any) -> Size | None:
    """(width, height) of a signature's frames, None where it takes any."""
    _, height, width, _ = runner.get_input_details()[INPUT]["shape_signature"].tolist()
    return None if -1 in (width, height) else (width, height)


class LiteRT:
    """An interpreter per stream, which computes one frame at a time.

    Args:
        streams: each interpreter's signature runners.
        options: what else there is to know.
    """

    def __init__(self, streams: list[list[Any]], options: RuntimeOptions) -> None:
        for runner in streams[0]:
            check_graph(runner.get_input_details(), runner.get_output_details())
        sizes = [_size(runner) for runner in streams[0]]
        # The runners by the size of their frames; None: any size.
        self._idle: LifoQueue[dict[Size | None, Any]] = LifoQueue()
        for runners in streams:
            self._idle.put(dict(zip(sizes, runners, strict=True)))
        self._closed = False
        self._sizes = tuple(size for size in sizes if size)
        if None not in sizes and (missing := set(options.input_sizes) - set(self._sizes)):
            raise ModelIntegrityError(
                f"expected signatures for frames of {sorted(missing)}, got {sorted(self._sizes)}; "
                "the manifest and the TFLite file disagree: reinstall the model"
            )
        self._facts = {
            "version": _version(),
            "device": "CPU (XNNPACK)",
            "precision": "as stored",
            "threads": str(options.threads),
        }

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Run the graph frame by frame; see ``edgeface.runtimes.base.Runtime``."""
        check_frames(frames, self._sizes)
        idle = self._idle
        if self._closed:
            raise closed(_NAME)
        runners = idle.get()
        try:
            runner = runners[(frames.shape[2], frames.shape[1]) if self._sizes else None]
            outputs = [runner(**{INPUT: frame[None]}) for frame in frames]
        except Exception as error:
            raise failed(_NAME, frames, error) from error
        finally:
            idle.put(runners)
        if len(outputs) == 1:
            return dict(outputs[0])
        return {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}

    def describe(self) -> Mapping[str, str]:
        """Facts for ``explain()``."""
        return self._facts

    def close(self) -> None:
        """Free the interpreters."""
        self._closed, self._idle = True, LifoQueue()
