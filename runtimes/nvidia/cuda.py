"""CUDA through cuda-python: checked calls, memory that frees itself, and facts about the GPU."""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgeface.errors import BackendUnavailableError, MissingDependencyError

DRIVER = "libcuda.so.1"
OUT_OF_MEMORY = "cudaErrorMemoryAllocation"
# Since 12.6 and before; 13.0 dropped the old one.
_LAYOUTS = (
    ("cuda.bindings.runtime", "cuda.bindings.driver", "cuda.bindings.nvrtc"),
    ("cuda.cudart", "cuda.cuda", "cuda.nvrtc"),
)
_NON_BLOCKING = 1


class CudaError(RuntimeError):
    """A CUDA call failed.

    Attributes:
        code: name of the error, such as "cudaErrorMemoryAllocation".
    """

    def __init__(self, call: str, code: str, text: str) -> None:
        super().__init__(f"{call}: {code}{text and f' ({text})'}")
        self.code = code


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        name: as its maker calls it.
        capability: compute capability, (major, minor).
        cuda: CUDA version of the driver, (major, minor).
        memory: bytes.
    """

    name: str
    capability: tuple[int, int]
    cuda: tuple[int, int]
    memory: int

    def __str__(self) -> str:
        return f"{self.name} (SM {self.capability[0]}.{self.capability[1]})"


@dataclass(frozen=True)
class Cuda:
    """cuda-python's modules, with calls that raise.

    Attributes:
        runtime: the runtime API.
        driver: the driver API.
        nvrtc: the compiler.
    """

    runtime: Any
    driver: Any
    nvrtc: Any

    def call(self, name: str, *arguments: Any) -> Any:
        """Call the runtime API; return its value, or a tuple where it has several.

        Raises:
            CudaError: it returned an error.
        """
        error, *values = getattr(self.runtime, name)(*arguments)
        if int(error):
            text = self.runtime.cudaGetErrorString(error)[1]
            raise CudaError(name, error.name, text.decode() if text else "")
        return values[0] if len(values) == 1 else tuple(values) or None

    def call_driver(self, name: str, *arguments: Any) -> Any:
        """Call the driver API; as ``call``."""
        return _checked(name, getattr(self.driver, name)(*arguments))

    def call_nvrtc(self, name: str, *arguments: Any) -> Any:
        """Call the compiler; as ``call``."""
        return _checked(name, getattr(self.nvrtc, name)(*arguments))

    def device(self) -> Device:
        """Facts about the GPU that CUDA counts first, which is the one that runs.

        Raises:
            BackendUnavailableError: no driver, one too old, or no GPU.
        """
        supported = self.call("cudaDriverGetVersion")
        needed = self.call("cudaRuntimeGetVersion")
        try:
            count = self.call("cudaGetDeviceCount")
            self.call("cudaSetDevice", 0)
            facts = self.call("cudaGetDeviceProperties", 0)
        except CudaError as error:
            raise _no_device(error, supported, needed) from error
        if not count:
            raise _no_device(CudaError("cudaGetDeviceCount", "0 devices", ""), supported, needed)
        return Device(
            name=facts.name.decode().rstrip("\0"),
            capability=(facts.major, facts.minor),
            cuda=_version(supported),
            memory=int(facts.totalGlobalMem),
        )

    def stream(self) -> Handle:
        """A stream that no other waits for."""
        stream = self.call("cudaStreamCreateWithFlags", _NON_BLOCKING)
        return Handle(self, stream, "cudaStreamDestroy")

    def event(self) -> Handle:
        """An event that a stream can record and another wait for."""
        return Handle(self, self.call("cudaEventCreate"), "cudaEventDestroy")

    def allocate(self, size: int) -> Handle:
        """Memory on the GPU, in bytes."""
        return Handle(self, self.call("cudaMalloc", size), "cudaFree")

    def allocate_on_host(self, size: int) -> Handle:
        """Page-locked memory of the host, in bytes."""
        return Handle(self, self.call("cudaHostAlloc", size, 0), "cudaFreeHost")


class Handle:
    """Something that CUDA made: freed with its last reference.

    Attributes:
        value: what cuda-python calls it.
    """

    def __init__(self, cuda: Cuda, value: Any, free: str) -> None:
        self.value = value
        self._free = weakref.finalize(self, getattr(cuda.runtime, free), value)

    def __int__(self) -> int:
        return int(self.value)


def load_cuda(install: str) -> Cuda:
    """Load the driver and cuda-python, of either layout.

    Args:
        install: the command that installs cuda-python.

    Raises:
        BackendUnavailableError: no NVIDIA driver.
        MissingDependencyError: cuda-python is not installed.
    """
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        raise BackendUnavailableError(
            f"expected the NVIDIA driver, but {DRIVER} cannot be loaded ({error}); install the "
            "driver, or choose another backend"
        ) from error
    for layout in _LAYOUTS:
        try:
            return Cuda(*map(import_module, layout))
        except ImportError as error:
            absent = error
    raise MissingDependencyError(
        f"expected the package 'cuda-python', but it does not import ({absent}); install it with: "
        f"{install}"
    ) from absent


def _checked(name: str, result: Any) -> Any:
    error, *values = result
    if int(error):
        raise CudaError(name, error.name, "")
    return values[0] if len(values) == 1 else tuple(values) or None


def _version(number: int) -> tuple[int, int]:
    return number // 1000, number % 1000 // 10


def _no_device(error: CudaError, supported: int, needed: int) -> BackendUnavailableError:
    """Build the error that says which of driver, version and GPU is missing."""
    has, wants = (".".join(map(str, _version(number))) for number in (supported, needed))
    if error.code == "cudaErrorInsufficientDriver" and not supported:
        why = "none answers: install the NVIDIA driver, and start containers with '--gpus all'"
    elif error.code in ("cudaErrorInsufficientDriver", "cudaErrorCompatNotSupportedOnDevice"):
        why = (
            f"it supports CUDA {has} only: update the driver, or install packages of that CUDA "
            f"(pip install 'cuda-python=={_version(supported)[0]}.*' "
            f"tensorrt-cu{_version(supported)[0]})"
        )
    elif error.code in ("cudaErrorNoDevice", "0 devices"):
        why = "it finds no GPU: look at 'nvidia-smi' and CUDA_VISIBLE_DEVICES"
    else:
        why = f"it says {error}: look at 'nvidia-smi', and restart the machine after an update"
    return BackendUnavailableError(f"expected an NVIDIA driver for CUDA {wants}, but {why}")
