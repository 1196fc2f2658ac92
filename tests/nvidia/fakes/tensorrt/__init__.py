"""A TensorRT without a GPU: the part of its Python API that edgeface calls, strict about its rules.

Engines are ONNX files with a header, and ONNX Runtime computes them: what comes out is right only
where shapes, names, memory and order are. Nothing here says anything about a GPU's results.
"""

from __future__ import annotations

import json
import weakref
from enum import IntEnum
from typing import Any

import numpy as np
import onnxruntime
from cuda.bindings import runtime as cuda

__version__ = "10.9.0"
_MARK = b"fake engine\n"


class _State:
    """Switches that make the library fail, and what it was asked."""

    def __init__(self) -> None:
        self.builds: list[dict[str, Any]] = []
        self.loads = 0
        # Contexts that outlived their engine, or engines their Runtime.
        self.orphans = 0
        self.build_error = self.load_error = self.start_error = ""
        self.rejected_operator = ""
        self.no_memory_for_contexts = self.cannot_be_captured = False


state = _State()


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError

    def __init__(self) -> None:
        self.started = True


class IProgressMonitor:
    def __init__(self) -> None:
        self.started = True


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(IntEnum):
    TF32 = 7


class TensorIOMode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1
    UINT8 = 5


def nptype(kind: DataType) -> Any:
    return {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8}[kind.name]


def _complain(logger: ILogger, message: str) -> None:
    logger.log(ILogger.Severity.ERROR, message)


class _Network:
    def __init__(self, flags: int) -> None:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        self._model = b""
        self._parser: Any = lambda: None
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]


class _ParserError:
    def __init__(self, text: str, operator: str = "", node: str = "") -> None:
        self._facts = text, operator, node

    def desc(self) -> str:
        return self._facts[0]

    def node_operator(self) -> str:
        return self._facts[1]

    def node_name(self) -> str:
        return self._facts[2]


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self._network, self._errors = network, list[_ParserError]()
        network._parser = weakref.ref(self)

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> _ParserError:
        return self._errors[index]

    def parse(self, model: bytes) -> bool:
        if state.rejected_operator:
            self._errors.append(
                _ParserError("no importer\nregistered", state.rejected_operator, "n1")
            )
            return False
        try:
            session = _session(model)
        except Exception as error:
            self._errors.append(_ParserError(f"cannot deserialize: {error}"))
            return False
        self._network._model = model
        self._network._inputs = session.get_inputs()
        self._network._outputs = session.get_outputs()
        return True


class _Profile:
    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def set_shape(self, name: str, smallest: Any, usual: Any, largest: Any) -> None:
        ordered = zip(smallest, usual, largest, strict=True)
        assert all(low <= middle <= high for low, middle, high in ordered)
        self._shapes[name] = [list(smallest), list(usual), list(largest)]


class _TimingCache:
    def __init__(self, kept: bytes) -> None:
        self._kept = kept

    def serialize(self) -> memoryview:
        return memoryview(self._kept + b"t")


class _Config:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.builder_optimization_level = 3
        self.progress_monitor: Any = None
        self._profiles: list[_Profile] = []
        self._timing: _TimingCache | None = None

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, kept: bytes) -> _TimingCache:
        return _TimingCache(kept)

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        self._timing = cache
        return True

    def get_timing_cache(self) -> _TimingCache | None:
        return self._timing


class Builder:
    def __init__(self, logger: ILogger) -> None:
        _start(logger)
        self._logger = logger

    def create_network(self, flags: int) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> Any:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: Any) -> memoryview | None:
        assert network._parser() is not None, "the parser owns the weights until the build is over"
        state.builds.append(
            {
                "tf32": BuilderFlag.TF32 in config.flags,
                "level": config.builder_optimization_level,
                "shapes": config._profiles[0]._shapes,
                "timings": config._timing and config._timing._kept,
                "config": config,
            }
        )
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 2)
        for step in range(2):
            monitor.phase_start("Timing", "Building", 4)
            for part in range(4):
                assert monitor.step_complete("Timing", part)
            monitor.phase_finish("Timing")
            assert monitor.step_complete("Building", step)
        monitor.phase_finish("Building")
        if state.build_error:
            _complain(self._logger, state.build_error)
            return None
        facts = {
            "version": __version__,
            "gpu": cuda.world.name.decode(),
            "shapes": config._profiles[0]._shapes,
        }
        return memoryview(_MARK + json.dumps(facts).encode() + b"\n" + network._model)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        _start(logger)
        self._logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> ICudaEngine | None:
        state.loads += 1
        if state.load_error or not data.startswith(_MARK):
            _complain(self._logger, state.load_error or "Magic tag does not match")
            return None
        facts, _, model = data.removeprefix(_MARK).partition(b"\n")
        return ICudaEngine(self, json.loads(facts)["shapes"], model, self._logger)


class ICudaEngine:
    def __init__(self, owner: Runtime, shapes: Any, model: bytes, logger: ILogger) -> None:
        self._owner = weakref.ref(owner)
        self._shapes, self._logger = shapes, logger
        self._session = _session(model)
        self._tensors = {one.name: one for one in self._session.get_inputs()}
        self._inputs = set(self._tensors)
        self._tensors |= {one.name: one for one in self._session.get_outputs()}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        kinds = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
        return DataType[kinds[self._tensors[name].type]]

    def create_execution_context(self, config: Any = None) -> IExecutionContext | None:
        assert self._owner() is not None, "the Runtime of an engine must outlive it"
        if state.no_memory_for_contexts:
            _complain(self._logger, "Requested amount of GPU memory could not be allocated")
            return None
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = weakref.proxy(engine)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._results: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._generation = 0
        self._warm = False

    def __del__(self) -> None:
        try:
            state.orphans += self._engine._owner() is None
        except ReferenceError:
            state.orphans += 1

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine._shapes[name]
        fits = all(a <= value <= b for a, value, b in zip(low, shape, high, strict=True))
        if not fits:
            _complain(self._engine._logger, f"shape {shape} is outside the profile")
            return False
        self._shapes, self._results, self._warm = {name: tuple(shape)}, {}, False
        self._generation += 1
        return True

    def infer_shapes(self) -> list[str]:
        if not self._shapes:
            return ["image"]
        frames = np.zeros(self._shapes["image"], np.uint8)
        try:
            values = self._engine._session.run(None, {"image": frames})
        except Exception as error:
            _complain(self._engine._logger, f"shapes do not fit: {error}")
            return ["image"]
        names = [one.name for one in self._engine._session.get_outputs()]
        self._results = {name: value.shape for name, value in zip(names, values, strict=True)}
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self._shapes | self._results).get(name, (-1,))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert name in self._engine._tensors
        self._addresses[name] = memory
        self._generation += 1
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        assert engine._owner() is not None, "the Runtime of an engine must outlive it"
        if set(self._addresses) != set(engine._tensors) or not self._shapes:
            _complain(engine._logger, "a tensor has no address or no shape")
            return False
        stream = cuda.world.streams[stream_handle]
        if stream.recorded is not None and (not self._warm or state.cannot_be_captured):
            stream.broken = True
            _complain(engine._logger, "this run cannot be captured")
            return False
        generation, self._warm = self._generation, True

        def run() -> None:
            assert generation == self._generation, "a graph ran after its context changed"
            frames = _memory(self._addresses["image"], self._shapes["image"], np.uint8)
            values = engine._session.run(None, {"image": frames})
            for output, value in zip(engine._session.get_outputs(), values, strict=True):
                _memory(self._addresses[output.name], value.shape, value.dtype)[...] = value

        stream.put(run)
        return True


def _memory(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return cuda.bytes_at(address, size).view(dtype).reshape(shape)


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _start(logger: ILogger) -> None:
    assert logger.started, "a logger must call ILogger.__init__"
    if state.start_error:
        _complain(logger, state.start_error)
        raise TypeError("pybind11::init(): factory function returned nullptr")
