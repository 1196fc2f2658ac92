"""Pictures on the GPU: the kernel's arithmetic, and the arrays that it takes.

The kernel's own text runs here, compiled for the CPU; NVRTC compiles it for GPUs where it is
installed. What no test here can see is a GPU running it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.devicepicture import DevicePicture, _from_capsule, device_picture, is_device_array
from edgeface.errors import BackendUnavailableError, InvalidImageError
from edgeface.imageio import read_image
from edgeface.preprocess import InputSize, letterbox, place
from edgeface.runtimes.nvidia import letterbox as room
from edgeface.runtimes.nvidia.cuda import Cuda

PAD = (104, 117, 123)
Kernel = Callable[..., None]


class OnDevice:
    """A NumPy array that claims to lie on the GPU."""

    def __init__(self, array: NDArray[Any], stream: int | None = None, dense: bool = False) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, True),
            "strides": None if dense else array.strides,
            "stream": stream,
            "version": 3,
        }


class Handed:
    """A NumPy array that claims, through DLPack, to lie on a device."""

    def __init__(self, array: NDArray[Any], device: tuple[int, int]) -> None:
        self.array, self.device = array, device
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__()


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def draw(kernel: Kernel, picture: DevicePicture, size: InputSize) -> NDArray[np.uint8]:
    """Letterbox with the kernel, as ``Letterboxer`` would launch it."""
    placed = place(picture.width, picture.height, size, 32)
    frame = np.full((1, placed.network_height, placed.network_width, 3), 7, np.uint8)
    frame_size = placed.network_width, placed.network_height
    values = room.arguments(picture, placed.content, frame.ctypes.data, frame_size, PAD)
    grid = (-(-side // block) for side, block in zip(frame_size, room.BLOCK, strict=True))
    kernel(*grid, *room.BLOCK, *values)
    return frame


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (480, 640),
        (720, 1280),
        (1080, 1920),
        (700, 1001),
        (777, 333),
        (2160, 3840),
        (33, 31),
        (1, 900),
        (900, 1),
        (1, 1),
    ],
)
@pytest.mark.parametrize("size", [640, 320, None, (256, 128)])
def test_every_pixel_is_that_of_the_cpu(
    kernel: Kernel, height: int, width: int, size: InputSize
) -> None:
    if size is None and width * height > 2_000_000:
        pytest.skip("a copy, as at the other sizes")
    picture = noise(height, width, 3, seed=height)
    wanted, _ = letterbox(picture, size, stride=32, pad_value=PAD)
    got = draw(kernel, device_picture(OnDevice(picture)), size)
    np.testing.assert_array_equal(got, wanted)


def test_shrinking_by_every_factor_is_that_of_the_cpu(kernel: Kernel) -> None:
    """Rounding of positions and weights shows at odd factors only."""
    for side in range(65, 400, 7):
        picture = noise(side, side * 3 // 2, 3, seed=side)
        wanted, _ = letterbox(picture, 64, stride=32, pad_value=PAD)
        np.testing.assert_array_equal(draw(kernel, device_picture(OnDevice(picture)), 64), wanted)


ARRAYS: dict[str, tuple[Callable[[], NDArray[np.uint8]], str]] = {
    "BGR": (lambda: noise(90, 120, 3), "bgr"),
    "RGB": (lambda: noise(90, 120, 3), "rgb"),
    "BGRA": (lambda: noise(90, 120, 4), "bgr"),
    "RGBA": (lambda: noise(90, 120, 4), "rgb"),
    "grey": (lambda: noise(90, 120), "bgr"),
    "grey RGB": (lambda: noise(90, 120, 1), "rgb"),
    "planar": (lambda: noise(3, 90, 120).transpose(1, 2, 0), "rgb"),
    "padded rows": (lambda: noise(90, 128, 3)[:, :120], "bgr"),
    "upside down": (lambda: noise(90, 120, 3)[::-1], "bgr"),
    "every second": (lambda: noise(90, 240, 3)[:, ::2], "bgr"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_every_layout_is_read_in_place(kernel: Kernel, what: str) -> None:
    make, color = ARRAYS[what]
    array = make()
    wanted, _ = letterbox(
        np.ascontiguousarray(read_image(array, color)), 64, stride=32, pad_value=PAD
    )
    np.testing.assert_array_equal(draw(kernel, device_picture(OnDevice(array), color), 64), wanted)


def test_strides_may_be_left_out(kernel: Kernel) -> None:
    array = noise(90, 120, 3)
    plain, dense = (device_picture(OnDevice(array, dense=dense)) for dense in (False, True))
    assert (plain.row_stride, plain.pixel_stride, plain.channel_stride) == (360, 3, 1)
    assert (dense.row_stride, dense.pixel_stride, dense.channel_stride) == (360, 3, 1)


def test_a_part_of_a_picture_is_a_view(kernel: Kernel) -> None:
    array = noise(90, 120, 3)
    whole = device_picture(OnDevice(array), "rgb")
    part = whole[10:70, 20:100]
    assert part.shape == (60, 80, 3)
    assert part.owner is whole.owner
    wanted, _ = letterbox(
        np.ascontiguousarray(array[10:70, 20:100, ::-1]), 64, stride=32, pad_value=PAD
    )
    np.testing.assert_array_equal(draw(kernel, part, 64), wanted)


def test_dlpack_is_opened_without_a_copy(kernel: Kernel) -> None:
    array = noise(90, 128, 3)[:, 4:124]
    handed = Handed(array, (2, 0))
    assert is_device_array(handed)
    picture = device_picture(handed, "bgr")
    assert picture.address == array.ctypes.data
    assert picture.row_stride == 128 * 3
    assert picture.stream == 1 and handed.streams == [1]
    wanted, _ = letterbox(np.ascontiguousarray(array), 64, stride=32, pad_value=PAD)
    np.testing.assert_array_equal(draw(kernel, picture, 64), wanted)


def test_dlpack_goes_first_and_an_old_interface_means_the_default_stream() -> None:
    class Both(Handed, OnDevice):
        def __init__(self, array: NDArray[np.uint8]) -> None:
            OnDevice.__init__(self, array, stream=77)
            Handed.__init__(self, array, (2, 0))

    array = noise(8, 8, 3)
    assert device_picture(Both(array)).stream == 1
    assert device_picture(OnDevice(array, stream=77)).stream == 77
    assert device_picture(OnDevice(array, stream=None)).stream is None
    old = OnDevice(array)
    del old.__cuda_array_interface__["stream"]
    assert device_picture(old).stream == 1


def test_dlpack_keeps_the_memory_until_the_picture_goes() -> None:
    array = noise(8, 8, 3)
    before = ctypes.c_ssize_t.from_address(id(array)).value
    picture = device_picture(Handed(array, (2, 0)))
    assert ctypes.c_ssize_t.from_address(id(array)).value > before
    del picture
    assert ctypes.c_ssize_t.from_address(id(array)).value == before


@pytest.mark.parametrize(
    ("array", "dtype"), [(np.zeros(3), "code 2, 64 bits"), (np.zeros(3, "i1"), "code 0, 8 bits")]
)
def test_dlpack_types_are_told_apart(array: Any, dtype: str) -> None:
    assert dtype in _from_capsule(array.__dlpack__())[1]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (OnDevice(np.zeros((4, 4, 3), np.float32)), "uint8 array, got float32"),
        (OnDevice(np.zeros((3, 40, 40), np.uint8)), r"got \(3, 40, 40\) .*permute\(1, 2, 0\)"),
        (OnDevice(np.zeros((1, 4, 4, 3), np.uint8)), r"got \(1, 4, 4, 3\) .*one picture at a time"),
        (OnDevice(np.zeros((0, 4, 3), np.uint8)), r"got \(0, 4, 3\)"),
        (Handed(np.zeros((4, 4, 3), np.uint8), (2, 1)), "on GPU 1; .*CUDA_VISIBLE_DEVICES"),
        (Handed(np.zeros((4, 4, 3), np.int16), (2, 0)), r"uint8 array, got \(code 0, 16 bits"),
    ],
)
def test_other_arrays_are_refused(array: Any, message: str) -> None:
    with pytest.raises(InvalidImageError, match=message):
        device_picture(array)


def test_host_arrays_are_not_taken_for_device_arrays() -> None:
    host = (np.zeros((4, 4, 3), np.uint8), "photo.jpg", b"", Handed(np.zeros(3), (1, 0)), None)
    assert not any(map(is_device_array, host))


def test_a_kernel_that_does_not_compile_is_an_error_with_the_remedy(gpu: Any) -> None:
    cuda = Cuda(gpu.runtime, gpu.driver, gpu.nvrtc)
    gpu.nvrtc.fail["nvrtcCompileProgram"] = "NVRTC_ERROR_INVALID_OPTION"
    with pytest.raises(BackendUnavailableError, match=r"INVALID_OPTION.*nvidia-cuda-nvrtc"):
        room.compile_kernel(cuda, (8, 9))


@pytest.mark.parametrize(
    ("capability", "target"), [((12, 0), b"compute_75"), ((7, 5), b"compute_75"), ((7, 2), b"_72")]
)
def test_the_kernel_is_compiled_for_any_gpu_and_without_fused_arithmetic(
    gpu: Any, capability: tuple[int, int], target: bytes
) -> None:
    room.compile_kernel(Cuda(gpu.runtime, gpu.driver, gpu.nvrtc), capability)
    architecture, fused = gpu.nvrtc.options
    assert architecture.endswith(target)
    assert fused == b"--fmad=false"


def test_nvrtc_compiles_the_kernel() -> None:
    """The real compiler, which needs no GPU."""
    bindings = pytest.importorskip("cuda.bindings", reason="needs the package cuda-python")
    del bindings
    from cuda.bindings import driver, nvrtc, runtime

    try:
        nvrtc.nvrtcVersion()
    except RuntimeError:
        pytest.skip("needs the package nvidia-cuda-nvrtc")
    code = room.compile_kernel(Cuda(runtime, driver, nvrtc), (8, 9))
    assert b".visible .entry letterbox(" in code
    assert b".target sm_75" in code
    assert code.endswith(b"\0")
    assert b"fma.rn" not in code
    parameters = code.count(b".param .")
    assert parameters == len(room._TYPES)
