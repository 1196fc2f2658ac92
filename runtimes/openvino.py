"""OpenVINO on the CPU: the fastest backend on x86, where it runs fp32 as bf16 if AMX is there.

Its package reports each import to its vendor, from a forked process, through
``openvino_telemetry``. edgeface hides that package first: pictures and models stay private. It also
puts off the import of the package's converter of models, which takes longer than the rest.

On other CPUs int8 graphs compute in float32: OpenVINO's own int8 moves boxes there (IoU 0.94 on an
emulated Cortex-A76), and on a Cortex-A53 it loads no graph that is int8 throughout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from math import prod
from threading import Lock, local
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface import cache
from edgeface.errors import EdgeFaceError
from edgeface.hardware import cpu_signature, host
from edgeface.runtimes.base import (
    Outputs,
    RuntimeOptions,
    check_frames,
    check_graph,
    closed,
    failed,
    import_vendor,
    rejected,
)
from edgeface.runtimes.openvino_graph import REWRITES, is_int8, take_camera_bytes

_NAME = "openvino"
_DEVICE = "CPU"
_CONVERTER = "openvino.tools.ovc"
_CHECKED = "openvino-graph"
_LOW_PRECISION = "LP_TRANSFORMS_MODE"
_STATIC_SHAPES = 4
_ANY_SHAPE = (-1, -1, -1, 3)

Shape = tuple[int, ...]


def probe() -> str:
    """Import OpenVINO and return its version."""
    return str(_import().__version__).split("-")[0]


def load(data: bytes, options: RuntimeOptions) -> OpenVino:
    """Load an ONNX graph from its bytes.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        BackendUnavailableError: it is installed but does not import.
        ModelIntegrityError: the graph cannot be loaded, or breaks the graph contract.
    """
    vendor = _import()
    try:
        runtime = OpenVino(vendor, data, options)
        if options.input_size:
            width, height = options.input_size
            runtime.prepare((options.batch or 1, height, width, 3))
    except EdgeFaceError:
        raise
    except Exception as error:
        raise rejected(_NAME, error) from error
    return runtime


def _import() -> ModuleType:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if _NAME in sys.modules or _CONVERTER in sys.modules:
        return import_vendor(_NAME)
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]
    try:
        vendor = import_vendor(_NAME)
    finally:
        del sys.modules[_CONVERTER]
    vars(vendor)["convert_model"] = _convert_model
    return vendor


def _convert_model(*args: Any, **options: Any) -> Any:
    """What ``openvino.convert_model`` is, for others in this process."""
    return import_module(_CONVERTER).convert_model(*args, **options)


class OpenVino:
    """Compiled graphs of one model, and a request per thread and graph.

    The first shapes that come get a static graph each, which is faster; the graph of dynamic
    shape, which takes a new shape at no cost, serves all others.
    """

    def __init__(self, vendor: ModuleType, data: bytes, options: RuntimeOptions) -> None:
        self._vendor = vendor
        self._core = core = vendor.Core()
        self._data: bytes | None = data
        self._names, int8 = self._check(data)
        self._options = options
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.threads,
            # Pinned, every detector of the machine would compute on the same core.
            "ENABLE_CPU_PINNING": False,
        }
        if options.streams > 1:
            self._config |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": options.streams}
        # What little of an int8 graph is float leaves it as float32, without another pass.
        if options.exact or int8:
            self._config["INFERENCE_PRECISION_HINT"] = "f32"
        if int8 and not host().is_x86:
            self._config[_LOW_PRECISION] = False
        self._graphs: dict[Shape, Any] = {}
        self._lock = Lock()
        self._requests = local()
        lowered = core.get_property(_DEVICE, "INFERENCE_PRECISION_HINT")
        self._facts = {
            "version": probe(),
            "device": str(core.get_property(_DEVICE, "FULL_DEVICE_NAME")),
            "precision": _precision(int8, options.exact, lowered.to_string()),
            "threads": str(options.threads),
        }

    def _check(self, data: bytes) -> tuple[list[str], bool]:
        """Names of the graph's outputs, and whether it is int8; one that is known is not read."""
        key = (sha256(data).hexdigest(), self._vendor.__version__, REWRITES)
        if kept := cache.recall(_CHECKED, *key):
            names, int8 = json.loads(kept)
        else:
            model = self._core.read_model(data)
            names, int8 = [port.any_name for port in model.outputs], is_int8(model)
            check_graph([port.any_name for port in model.inputs], names)
            cache.remember(_CHECKED, *key, data=json.dumps([names, int8]).encode())
        return names, int8

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Run the graph; see ``edgeface.runtimes.base.Runtime``."""
        check_frames(frames, self._options.input_sizes)
        if self._data is None:
            raise closed(_NAME)
        try:
            request, outputs = self._request(frames.shape)
            image = self._vendor.Tensor(frames, shared_memory=frames.flags.writeable)
            request.set_input_tensor(0, image)
            request.start_async()
            request.wait()
            return dict(outputs) if outputs else self._outputs(request)
        except Exception as error:
            raise failed(_NAME, frames, error) from error

    def prepare(self, shape: Shape) -> Shape:
        """Compile a graph for frames of that shape if need be; return the graph's own shape."""
        with self._lock:
            # Batches take no place from single frames.
            static = self._graphs.keys() - {_ANY_SHAPE}
            alike = [known for known in static if (known[0] > 1) == (shape[0] > 1)]
            if shape not in self._graphs and len(alike) >= _STATIC_SHAPES:
                shape = _ANY_SHAPE
            if shape not in self._graphs:
                self._graphs[shape] = self._compile(shape)
            return shape

    def describe(self) -> Mapping[str, str]:
        """Facts for ``explain()``."""
        return self._facts

    def close(self) -> None:
        """Free the graphs."""
        self._data = None
        self._graphs = {}
        self._requests = local()

    def _request(self, shape: Shape) -> tuple[Any, Outputs]:
        """This thread's request for a shape, and its outputs where they stay in one place."""
        shape = self.prepare(shape)
        requests: dict[Shape, Any] = vars(self._requests).setdefault("by_shape", {})
        if shape not in requests:
            request = self._graphs[shape].create_infer_request()
            requests[shape] = request, {} if shape == _ANY_SHAPE else self._outputs(request)
        found: tuple[Any, Outputs] = requests[shape]
        return found

    def _outputs(self, request: Any) -> Outputs:
        tensors = (request.get_output_tensor(index) for index in range(len(self._names)))
        return {name: tensor.data for name, tensor in zip(self._names, tensors, strict=True)}

    def _compile(self, shape: Shape) -> Any:
        facts = (self._facts, self._config, cpu_signature(), REWRITES)
        key = (self._options.cache_key, shape, *facts)
        if kept := cache.recall(_NAME, *key):
            with suppress(RuntimeError):
                return self._core.import_model(kept, _DEVICE, self._config)
        model = self._core.read_model(self._data)
        model.reshape(shape)
        _check_reshapes(model)
        if host().is_x86:
            take_camera_bytes(self._vendor, model)
        graph = self._core.compile_model(model, _DEVICE, self._config)
        with suppress(RuntimeError):
            exported = BytesIO()
            graph.export_model(exported)
            cache.remember(_NAME, *key, data=exported.getvalue())
        return graph


def _precision(int8: bool, exact: bool, lowered: str) -> str:
    if int8:
        return "int8" if host().is_x86 else "f32, as an int8 graph rounds"
    return "f32" if exact else lowered


def _check_reshapes(model: Any) -> None:
    """Raise RuntimeError where a graph's constants fit another frame size; OpenVINO would crash."""
    for node in model.get_ops():
        if node.get_type_name() == "Reshape":
            source, target = (port.get_partial_shape() for port in (node.input(0), node.output(0)))
            static = source.is_static and target.is_static
            if static and prod(source.to_shape()) != prod(target.to_shape()):
                raise RuntimeError(f"{node.friendly_name} would make {target} of {source}")
