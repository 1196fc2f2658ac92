"""One thread's way through an engine: its context, stream, memory and CUDA graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface import cache
from edgeface.devicepicture import DevicePicture
from edgeface.errors import BackendUnavailableError
from edgeface.runtimes.base import INPUT, Outputs
from edgeface.runtimes.nvidia.cuda import Cuda, CudaError, Handle
from edgeface.runtimes.nvidia.engines import Engine
from edgeface.runtimes.nvidia.letterbox import Letterboxer
from edgeface.runtimes.nvidia.vendor import Vendor

Size = tuple[int, int]
Color = tuple[int, int, int]

_TO_DEVICE, _TO_HOST = "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"
# Other threads may allocate memory while this one captures.
_CAPTURE_MODE = "cudaStreamCaptureModeThreadLocal"


class Session:
    """Runs frames, one call at a time.

    The first run of a shape is plain, as TensorRT demands before a capture; the second captures a
    CUDA graph, which later runs launch. Another shape drops the graph.
    """

    def __init__(
        self, vendor: Vendor, cuda: Cuda, engine: Engine, letterboxer: Letterboxer
    ) -> None:
        kept = cache.recall(_kernels(vendor), *engine.key) if vendor.compiles_on_device else None
        vendor.log.errors.clear()
        # Attributes go in this order: a graph before its context, and that before its engine.
        self._graph: Handle | None = None
        self._context, self._kernels = vendor.context(engine.engine, kept or b"")
        self._engine = engine
        self._vendor = vendor
        self._cuda = cuda
        self._letterboxer = letterboxer
        if self._context is None:
            raise BackendUnavailableError(
                f"expected GPU memory for frames of {engine.profile}, got: {vendor.trouble()}; "
                "close other programs that use the GPU, or take a smaller input_size"
            )
        self._stream = cuda.stream()
        self._shape: tuple[int, ...] = ()
        self._memory: dict[str, Handle] = {}
        self._pinned: dict[str, NDArray[np.uint8]] = {}
        self._input: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._outputs: dict[str, NDArray[Any]] = {}
        self._runs = 0
        self._may_capture = not vendor.compiles_on_device

    @property
    def captured(self) -> bool:
        """Whether the next run of the same shape launches a CUDA graph."""
        return self._graph is not None

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Run frames from the memory of the host."""
        self._prepare(frames.shape)
        np.copyto(self._input, frames)
        self._copy(self._memory[INPUT], self._input.ctypes.data, self._input.nbytes, _TO_DEVICE)
        return self._run()

    def infer_picture(
        self, picture: DevicePicture, content: Size, frame: Size, pad_value: Color
    ) -> Outputs:
        """Run one picture from the memory of the GPU, letterboxed there."""
        self._prepare((1, frame[1], frame[0], 3))
        if picture.stream is not None:
            self._wait_for(picture.stream)
        self._letterboxer.draw(
            picture, content, int(self._memory[INPUT]), frame, pad_value, self._stream.value
        )
        return self._run()

    def save(self) -> None:
        """Keep the kernels that TensorRT-RTX compiled."""
        if self._kernels is not None and self._runs:
            compiled = bytes(self._kernels.serialize())
            cache.remember(_kernels(self._vendor), *self._engine.key, data=compiled)

    def _run(self) -> Outputs:
        if self._graph is None and self._runs and self._may_capture:
            self._capture()
        if self._graph is not None:
            self._cuda.call("cudaGraphLaunch", self._graph.value, self._stream.value)
        else:
            self._enqueue()
        self._cuda.call("cudaStreamSynchronize", self._stream.value)
        self._runs += 1
        if self._runs == 1:
            self.save()
        return {name: _as_float32(values) for name, values in self._outputs.items()}

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Set the shape and the memory of every tensor, where the shape is a new one."""
        if shape == self._shape:
            return
        self._shape, self._graph, self._runs = (), None, 0
        context, engine = self._context, self._engine.engine
        if not context.set_input_shape(INPUT, shape) or context.infer_shapes():
            raise RuntimeError(f"TensorRT refuses the shape: {self._vendor.trouble()}")
        self._outputs = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = np.dtype(self._vendor.api.nptype(engine.get_tensor_dtype(name)))
            dimensions = tuple(context.get_tensor_shape(name))
            size = math.prod(dimensions) * dtype.itemsize
            self._reserve(name, size)
            host = self._pinned[name][:size].view(dtype).reshape(dimensions)
            if name == INPUT:
                self._input = host
            else:
                self._outputs[name] = host
            if not context.set_tensor_address(name, int(self._memory[name])):
                raise RuntimeError(f"TensorRT refuses memory for '{name}'")
        self._shape = shape

    def _reserve(self, name: str, size: int) -> None:
        """Make a tensor's memory on both sides at least that large."""
        if name not in self._memory or self._pinned[name].size < size:
            self._memory.pop(name, None)
            self._pinned[name] = self._cuda.pinned(size)
            self._memory[name] = self._cuda.allocate(size)

    def _enqueue(self) -> None:
        """Put the engine and the copies of its outputs into the stream."""
        if not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"TensorRT does not run: {self._vendor.trouble()}")
        for name, values in self._outputs.items():
            self._copy(values.ctypes.data, self._memory[name], values.nbytes, _TO_HOST)

    def _capture(self) -> None:
        """Record what ``_enqueue`` does; where that fails, go on without a graph for good."""
        runtime, stream = self._cuda.runtime, self._stream.value
        mode = getattr(runtime.cudaStreamCaptureMode, _CAPTURE_MODE)
        self._may_capture = False
        self._cuda.call("cudaStreamBeginCapture", stream, mode)
        try:
            self._enqueue()
        except RuntimeError:
            # A failed capture is still open, and CUDA keeps its error until asked.
            runtime.cudaStreamEndCapture(stream)
            runtime.cudaGetLastError()
            return
        try:
            recorded = Handle(
                self._cuda, self._cuda.call("cudaStreamEndCapture", stream), "cudaGraphDestroy"
            )
            graph = self._cuda.call("cudaGraphInstantiate", recorded.value, 0)
        except CudaError:
            runtime.cudaGetLastError()
            return
        self._graph = Handle(self._cuda, graph, "cudaGraphExecDestroy")
        self._may_capture = True

    def _wait_for(self, producer: int) -> None:
        """Let the stream wait until another one has done what it holds now."""
        event = self._cuda.event()
        self._cuda.call("cudaEventRecord", event.value, producer)
        self._cuda.call("cudaStreamWaitEvent", self._stream.value, event.value, 0)

    def _copy(self, target: Handle | int, source: Handle | int, size: int, kind: str) -> None:
        direction = getattr(self._cuda.runtime.cudaMemcpyKind, kind)
        arguments = (int(target), int(source), size, direction, self._stream.value)
        self._cuda.call("cudaMemcpyAsync", *arguments)


def _kernels(vendor: Vendor) -> str:
    return f"{vendor.name}-kernels"


def _as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32, copy=False)
