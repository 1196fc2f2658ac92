"""ONNX Runtime: the embedded default, installed with edgeface but on 64-bit ARM Linux.

It runs on the CPU, or on an NVIDIA GPU where the installed build brings the CUDA provider and that
loads. ONNX Runtime itself falls back to the CPU without a word, so the session is asked.

From 1.29 on its Linux wheels report to their vendor unless ``ORT_DISABLE_TELEMETRY`` is set before
the import. edgeface sets it, except where the user chose a value: pictures and models stay private.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.hardware import host
from edgeface.runtimes.base import (
    CUDA_DEVICE,
    INPUT,
    Outputs,
    RuntimeOptions,
    check_frames,
    check_graph,
    closed,
    failed,
    import_vendor,
    rejected,
)

_NAME = "onnxruntime"
_FATAL_ONLY = 4
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def probe() -> str:
    """Import ONNX Runtime and return its version."""
    return str(_import().__version__)


def load(data: bytes, options: RuntimeOptions) -> OnnxRuntime:
    """Load an ONNX graph from its bytes.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        BackendUnavailableError: it is installed but does not import.
        ModelIntegrityError: the graph cannot be loaded, or breaks the graph contract.
    """
    onnxruntime = _import()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _FATAL_ONLY
    settings.inter_op_num_threads = 1
    settings.intra_op_num_threads = options.threads_per_stream
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = _providers(onnxruntime, options)
    try:
        session = onnxruntime.InferenceSession(data, settings, providers=providers)
    except Exception as error:
        raise rejected(_NAME, error) from error
    device = CUDA_DEVICE if session.get_providers()[0] == _CUDA else "CPU"
    if device == "CPU" and len(providers) > 1:
        device = "CPU, for the CUDA provider did not load: its CUDA or cuDNN libraries are missing"
    return OnnxRuntime(session, onnxruntime.__version__, device, options)


def _providers(onnxruntime: ModuleType, options: RuntimeOptions) -> list[Any]:
    """The CUDA provider where this build has it and a driver is here, then the CPU's."""
    if not host().nvidia or _CUDA not in onnxruntime.get_available_providers():
        return [_CPU]
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(StringIO()):
            onnxruntime.preload_dlls()
    return [(_CUDA, {"use_tf32": str(int(not options.exact))}), _CPU]


def _import() -> ModuleType:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return import_vendor(_NAME)


class OnnxRuntime:
    """A graph in an ``onnxruntime.InferenceSession``; frames of any size, several at once."""

    def __init__(self, session: Any, version: str, device: str, options: RuntimeOptions) -> None:
        self._outputs = [node.name for node in session.get_outputs()]
        check_graph([node.name for node in session.get_inputs()], self._outputs)
        self._session: Any = session
        self._options = options
        self._facts = {
            "version": version,
            "device": device,
            "precision": "as stored",
            "threads": str(options.threads),
        }

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Run the graph; see ``edgeface.runtimes.base.Runtime``."""
        check_frames(frames, self._options.input_sizes)
        session = self._session
        if session is None:
            raise closed(_NAME)
        try:
            values = session.run(self._outputs, {INPUT: frames})
        except Exception as error:
            raise failed(_NAME, frames, error) from error
        return dict(zip(self._outputs, values, strict=True))

    def describe(self) -> Mapping[str, str]:
        """Facts for ``explain()``."""
        return self._facts

    def close(self) -> None:
        """Free the session."""
        self._session = None
