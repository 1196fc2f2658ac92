"""The runtime API over the host's memory.

Streams run nothing before they are synchronised, freed memory is never given out again, and every
address is looked up: work that outlives its memory, or comes in the wrong order, is an error.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from threading import get_ident
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], None]


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorSystemDriverMismatch = 803
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


class Stream:
    """Work that waits, and what a capture has recorded of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.work: list[Work] = []
        self.recorded: list[Work] | None = None
        self.broken = False

    def __int__(self) -> int:
        return self.number

    def put(self, work: Work) -> None:
        (self.work if self.recorded is None else self.recorded).append(work)

    def run(self, count: int | None = None) -> None:
        count = len(self.work) if count is None else count
        now, self.work = self.work[:count], self.work[count:]
        for work in now:
            work()


class World:
    """All that the fake GPU holds, and the switches that make it fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: dict[str, str] = {}
        self.driver, self.runtime, self.devices = 13000, 12060, 1
        self.name, self.major, self.minor = b"Fake GPU", 8, 9
        self.device: dict[int, NDArray[np.uint8]] = {}
        self.host: dict[int, NDArray[np.uint8]] = {}
        self.freed: list[NDArray[np.uint8]] = []
        # The legacy default stream, as other libraries use it.
        self.streams: dict[int, Stream] = {1: Stream(1)}
        self.objects: dict[int, Any] = {}
        self.next = 1000
        # Threads in which a call of this API made the GPU current.
        self.threads: set[int] = set()

    def number(self) -> int:
        self.next += 1
        return self.next

    def find(self, address: int, size: int, memories: dict[int, NDArray[np.uint8]]) -> Any:
        """Bytes at an address; None where they were not allocated there."""
        for start, memory in memories.items():
            if start <= address and address + size <= start + memory.size:
                return memory[address - start : address - start + size]
        return None

    def capturing(self) -> bool:
        return any(stream.recorded is not None for stream in self.streams.values())


world = World()


def _call(name: str, forbidden_in_capture: bool = False) -> cudaError_t:
    world.calls.append(name)
    world.threads.add(get_ident())
    if forbidden_in_capture and world.capturing():
        for stream in world.streams.values():
            stream.broken = stream.recorded is not None
        return cudaError_t.cudaErrorStreamCaptureUnsupported
    return cudaError_t[world.fail.get(name, "cudaSuccess")]


def cudaGetErrorString(error: cudaError_t) -> tuple[cudaError_t, bytes]:
    return cudaError_t.cudaSuccess, f"the fake's {error.name}".encode()


def cudaGetLastError() -> tuple[cudaError_t]:
    return (_call("cudaGetLastError"),)


def cudaDriverGetVersion() -> tuple[cudaError_t, int]:
    return _call("cudaDriverGetVersion"), world.driver


def cudaRuntimeGetVersion() -> tuple[cudaError_t, int]:
    return _call("cudaRuntimeGetVersion"), world.runtime


def cudaGetDeviceCount() -> tuple[cudaError_t, int]:
    error = _call("cudaGetDeviceCount")
    if world.driver < world.runtime:
        error = cudaError_t.cudaErrorInsufficientDriver
    return error, world.devices


def cudaSetDevice(index: int) -> tuple[cudaError_t]:
    return (_call("cudaSetDevice"),)


def cudaGetDeviceProperties(index: int) -> tuple[cudaError_t, Any]:
    facts = SimpleNamespace(
        name=world.name, major=world.major, minor=world.minor, totalGlobalMem=8 << 30
    )
    return _call("cudaGetDeviceProperties"), facts


def _allocate(name: str, size: int, memories: dict[int, NDArray[np.uint8]]) -> Any:
    error = _call(name, forbidden_in_capture=True)
    if error:
        return error, 0
    memory = np.full(max(size, 1), 0xCD, np.uint8)
    memories[memory.ctypes.data] = memory
    return error, memory.ctypes.data


def _free(name: str, address: int, memories: dict[int, NDArray[np.uint8]]) -> Any:
    error = _call(name)
    memory = memories.pop(address)
    memory.fill(0xDD)
    world.freed.append(memory)
    return (error,)


def cudaMalloc(size: int) -> Any:
    return _allocate("cudaMalloc", size, world.device)


def cudaFree(address: int) -> Any:
    return _free("cudaFree", address, world.device)


def cudaHostAlloc(size: int, flags: int) -> Any:
    return _allocate("cudaHostAlloc", size, world.host)


def cudaFreeHost(address: int) -> Any:
    return _free("cudaFreeHost", address, world.host)


def cudaStreamCreateWithFlags(flags: int) -> tuple[cudaError_t, Stream]:
    assert flags == 1, "a stream that waits for the default stream would stall every other"
    stream = Stream(world.number())
    world.streams[stream.number] = stream
    return _call("cudaStreamCreateWithFlags"), stream


def cudaStreamDestroy(stream: Stream) -> tuple[cudaError_t]:
    del world.streams[stream.number]
    return (_call("cudaStreamDestroy"),)


def cudaStreamSynchronize(stream: Stream) -> tuple[cudaError_t]:
    error = _call("cudaStreamSynchronize", forbidden_in_capture=True)
    if not error:
        stream.run()
    return (error,)


def cudaMemcpyAsync(
    target: int, source: int, size: int, kind: cudaMemcpyKind, stream: Stream
) -> tuple[cudaError_t]:
    error = _call("cudaMemcpyAsync")
    to_device = kind == cudaMemcpyKind.cudaMemcpyHostToDevice
    into, out_of = (world.device, world.host) if to_device else (world.host, world.device)

    def copy() -> None:
        written, read = world.find(target, size, into), world.find(source, size, out_of)
        assert written is not None, "a copy goes to memory that is not there"
        assert read is not None, "a copy comes from memory that is not there, or is pageable"
        written[:] = read

    if not error:
        stream.put(copy)
    return (error,)


def cudaStreamBeginCapture(stream: Stream, mode: cudaStreamCaptureMode) -> tuple[cudaError_t]:
    error = _call("cudaStreamBeginCapture")
    assert mode == cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    stream.recorded, stream.broken = [], False
    return (error,)


def cudaStreamEndCapture(stream: Stream) -> Any:
    error = _call("cudaStreamEndCapture")
    recorded, stream.recorded = stream.recorded, None
    if stream.broken:
        return cudaError_t.cudaErrorStreamCaptureInvalidated, None
    return error, _object(recorded)


def cudaGraphInstantiate(graph: int, flags: int) -> Any:
    error = _call("cudaGraphInstantiate")
    return error, None if error else _object(list(world.objects[graph]))


def cudaGraphLaunch(graph: int, stream: Stream) -> tuple[cudaError_t]:
    error = _call("cudaGraphLaunch")
    for work in world.objects[graph]:
        stream.put(work)
    return (error,)


def cudaGraphDestroy(graph: int) -> tuple[cudaError_t]:
    del world.objects[graph]
    return (_call("cudaGraphDestroy"),)


def cudaGraphExecDestroy(graph: int) -> tuple[cudaError_t]:
    del world.objects[graph]
    return (_call("cudaGraphExecDestroy"),)


def cudaEventCreate() -> Any:
    return _call("cudaEventCreate"), _object([])


def cudaEventDestroy(event: int) -> tuple[cudaError_t]:
    del world.objects[event]
    return (_call("cudaEventDestroy"),)


def cudaEventRecord(event: int, stream: int) -> tuple[cudaError_t]:
    producer = world.streams[int(stream)]
    count = len(producer.work)
    world.objects[event].append(lambda: producer.run(count))
    return (_call("cudaEventRecord"),)


def cudaStreamWaitEvent(stream: Stream, event: int, flags: int) -> tuple[cudaError_t]:
    stream.put(world.objects[event][-1])
    return (_call("cudaStreamWaitEvent"),)


def cudaMemGetInfo() -> tuple[cudaError_t, int, int]:
    used = sum(memory.size for memory in world.device.values())
    return _call("cudaMemGetInfo"), (8 << 30) - used, 8 << 30


def _object(value: Any) -> int:
    number = world.number()
    world.objects[number] = value
    return number


def bytes_at(address: int, size: int) -> NDArray[np.uint8]:
    """Memory as a kernel sees it: device memory only."""
    found = world.find(address, size, world.device)
    assert found is not None, "a kernel leaves its memory"
    array: NDArray[np.uint8] = found
    return array


def raw(address: int, size: int) -> Any:
    """Pointer for native code, checked as ``bytes_at``."""
    bytes_at(address, size)
    return ctypes.c_void_p(address)
