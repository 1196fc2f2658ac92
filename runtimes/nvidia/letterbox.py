"""Letterboxing on the GPU, with the pixels that ``edgeface.preprocess.letterbox`` makes."""

from __future__ import annotations

import ctypes
from pathlib import Path
from threading import Lock
from typing import Any

from edgeface.devicepicture import DevicePicture
from edgeface.errors import BackendUnavailableError
from edgeface.runtimes.nvidia.cuda import Cuda, CudaError, Device

Size = tuple[int, int]
Color = tuple[int, int, int]

KERNEL = Path(__file__).with_name("letterbox.cu")
BLOCK = (32, 8)
# PTX of an older compute capability runs on every newer GPU, even one that NVRTC does not know.
_NEWEST_NEEDED = (7, 5)
_TYPES = (
    *(ctypes.c_void_p, ctypes.c_longlong, ctypes.c_longlong, ctypes.c_longlong),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_double, ctypes.c_double, ctypes.c_int, ctypes.c_int),
    *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_uint),
)


class Letterboxer:
    """The kernel, compiled for a GPU when the first picture comes."""

    def __init__(self, cuda: Cuda, device: Device) -> None:
        self._cuda = cuda
        self._device = device
        self._lock = Lock()
        self._kernel: Any = None

    def draw(
        self,
        picture: DevicePicture,
        content: Size,
        frame: int,
        frame_size: Size,
        pad_value: Color,
        stream: Any,
    ) -> None:
        """Put a kernel into the stream that fills a frame.

        Args:
            picture: in the memory of the GPU.
            content: (width, height) to which it is shrunk.
            frame: address on the GPU of uint8 (H, W, 3) BGR.
            frame_size: (width, height) of the frame in pixels.
            pad_value: BGR value outside the picture.
            stream: the stream.

        Raises:
            BackendUnavailableError: the kernel cannot be compiled.
            CudaError: it cannot be launched.
        """
        values = arguments(picture, content, frame, frame_size, pad_value)
        grid = (-(-size // block) for size, block in zip(frame_size, BLOCK, strict=True))
        self._cuda.call_driver(
            "cuLaunchKernel",
            *(self._compiled(), *grid, 1, *BLOCK, 1, 0, int(stream), (values, _TYPES), 0),
        )

    def _compiled(self) -> Any:
        with self._lock:
            if self._kernel is None:
                code = compile_kernel(self._cuda, self._device.capability)
                module = self._cuda.call_driver("cuModuleLoadData", code)
                self._kernel = self._cuda.call_driver("cuModuleGetFunction", module, b"letterbox")
            return self._kernel


def arguments(
    picture: DevicePicture, content: Size, frame: int, frame_size: Size, pad_value: Color
) -> tuple[int | float, ...]:
    """The kernel's arguments, in its order."""
    columns, rows = content
    blue, green, red = pad_value
    return (
        *(picture.address, picture.row_stride, picture.pixel_stride, picture.channel_stride),
        *(picture.width, picture.height),
        *(1.0 / (columns / picture.width), 1.0 / (rows / picture.height), columns, rows),
        *(frame, *frame_size, blue | green << 8 | red << 16),
    )


def compile_kernel(cuda: Cuda, capability: tuple[int, int]) -> bytes:
    """Compile the kernel to PTX that a GPU of that compute capability takes.

    Raises:
        BackendUnavailableError: NVRTC is absent or refuses; pictures then go through the CPU.
    """
    major, minor = min(capability, _NEWEST_NEEDED)
    # A fused multiply-add would round the positions in another way than the CPU does.
    options = [f"--gpu-architecture=compute_{major}{minor}".encode(), b"--fmad=false"]
    try:
        source = KERNEL.read_bytes()
        program = cuda.call_nvrtc("nvrtcCreateProgram", source, KERNEL.name.encode(), 0, [], [])
        cuda.call_nvrtc("nvrtcCompileProgram", program, len(options), options)
        size: int = cuda.call_nvrtc("nvrtcGetPTXSize", program)
        code = b" " * size
        cuda.call_nvrtc("nvrtcGetPTX", program, code)
    except (CudaError, RuntimeError, OSError) as error:
        raise BackendUnavailableError(
            f"expected NVRTC to compile the letterbox for pictures on the GPU, got: {error}; "
            "install that of your CUDA (pip install nvidia-cuda-nvrtc, or nvidia-cuda-nvrtc-cu12), "
            "or pass pictures in the CPU's memory"
        ) from error
    return code
