"""An engine at work: its context, stream, memory and CUDA graph."""

from __future__ import annotations

import math
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeface import cache
from edgeface.devicepicture import DevicePicture
from edgeface.errors import BackendUnavailableError
from edgeface.runtimes.base import INPUT, Outputs
from edgeface.runtimes.nvidia.cuda import Cuda, CudaError, Handle
from edgeface.runtimes.nvidia.engines import Engine
from edgeface.runtimes.nvidia.letterbox import Letterboxer
from edgeface.runtimes.nvidia.pinned import PinnedPool
from edgeface.runtimes.nvidia.vendor import Vendor

Size = tuple[int, int]
Color = tuple[int, int, int]

_TO_DEVICE, _TO_HOST = "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"
# Other threads may allocate memory while this one captures.
_CAPTURE_MODE = "cudaStreamCaptureModeThreadLocal"
# What CUDA's own allocations begin at.
_ALIGNMENT = 256


class _Tensor(NamedTuple):
    """Where an output lies in the memory of all outputs."""

    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes that it fills."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def space(self) -> int:
        """Bytes to where the next one may start."""
        return -(-self.size // _ALIGNMENT) * _ALIGNMENT

    def of(self, memory: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Its values in a copy of the memory of all outputs, as float32."""
        values = memory[self.start : self.start + self.size].view(self.dtype)
        return values.reshape(self.shape).astype(np.float32, copy=False)


class _Memory:
    """Memory on the GPU that grows where it must."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._handle: Handle | None = None
        self._size = 0

    @property
    def address(self) -> int:
        """Where it begins."""
        return int(self._handle) if self._handle else 0

    def reserve(self, size: int) -> None:
        """Make it at least that many bytes; it may move, and loses its content."""
        if size > self._size:
            self._handle, self._size = None, 0
            self._handle, self._size = self._cuda.allocate(size), size


class Session:
    """Runs frames for any thread, one call at a time.

    The first run of a shape is plain, as TensorRT demands before a capture; the second captures a
    CUDA graph, which later runs launch. Another shape drops the graph. All outputs lie side by
    side, so that one copy brings them home, into memory that lives as long as their last view.
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
        self._lock = Lock()
        self._stream = cuda.stream()
        self._pinned = PinnedPool(cuda)
        self._shape: tuple[int, ...] = ()
        self._frames = _Memory(cuda)
        self._results = _Memory(cuda)
        self._staged: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._outputs: dict[str, _Tensor] = {}
        self._runs = 0
        self._may_capture = not vendor.compiles_on_device

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Run frames from the memory of the host."""
        with self._lock:
            self._prepare(frames.shape)
            if self._staged.size != frames.nbytes:
                self._staged = self._pinned.take(frames.nbytes)
            np.copyto(self._staged.reshape(frames.shape), frames)
            self._copy(self._frames.address, self._staged.ctypes.data, frames.nbytes, _TO_DEVICE)
            return self._run()

    def infer_picture(
        self, picture: DevicePicture, content: Size, frame: Size, pad_value: Color
    ) -> Outputs:
        """Run one picture from the memory of the GPU, letterboxed there."""
        with self._lock:
            self._prepare((1, frame[1], frame[0], 3))
            if picture.stream is not None:
                self._wait_for(picture.stream)
            # The driver's API, unlike the runtime's, does not make the GPU this thread's own.
            self._cuda.call("cudaSetDevice", 0)
            target, stream = self._frames.address, self._stream.value
            self._letterboxer.draw(picture, content, target, frame, pad_value, stream)
            return self._run()

    def close(self) -> None:
        """Wait for the running call, and keep what was learnt; the rest goes with the last use."""
        with self._lock:
            self._save()

    def _save(self) -> None:
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
        home = self._pinned.take(sum(tensor.space for tensor in self._outputs.values()))
        self._copy(home.ctypes.data, self._results.address, home.nbytes, _TO_HOST)
        self._cuda.call("cudaStreamSynchronize", self._stream.value)
        self._runs += 1
        if self._runs == 1:
            self._save()
        return {name: tensor.of(home) for name, tensor in self._outputs.items()}

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Set the shape and the memory of every tensor, where the shape is a new one."""
        if shape == self._shape:
            return
        self._shape, self._graph, self._runs = (), None, 0
        context = self._context
        if not context.set_input_shape(INPUT, shape) or context.infer_shapes():
            raise RuntimeError(f"TensorRT refuses the shape: {self._vendor.trouble()}")
        self._outputs = self._lay_out()
        self._frames.reserve(math.prod(shape))
        self._results.reserve(sum(tensor.space for tensor in self._outputs.values()))
        addresses = {INPUT: self._frames.address} | {
            name: self._results.address + tensor.start for name, tensor in self._outputs.items()
        }
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise RuntimeError(f"TensorRT refuses memory for '{name}'")
        self._shape = shape

    def _lay_out(self) -> dict[str, _Tensor]:
        """Places for all outputs of the shape that is set."""
        engine, start = self._engine.engine, 0
        outputs = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if name != INPUT:
                dtype = np.dtype(self._vendor.api.nptype(engine.get_tensor_dtype(name)))
                tensor = _Tensor(start, dtype, tuple(self._context.get_tensor_shape(name)))
                outputs[name] = tensor
                start += tensor.space
        return outputs

    def _enqueue(self) -> None:
        """Put the engine into the stream."""
        if not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"TensorRT does not run: {self._vendor.trouble()}")

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

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        direction = getattr(self._cuda.runtime.cudaMemcpyKind, kind)
        arguments = (target, source, size, direction, self._stream.value)
        self._cuda.call("cudaMemcpyAsync", *arguments)


def _kernels(vendor: Vendor) -> str:
    return f"{vendor.name}-kernels"
