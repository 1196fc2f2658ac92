"""A fake NVIDIA machine: CUDA and both TensorRT libraries as packages of the folder ``fakes``."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.bundle import load_bundle
from edgeface.runtimes.base import RuntimeOptions
from edgeface.runtimes.nvidia import cuda as room
from edgeface.runtimes.nvidia.letterbox import KERNEL

FAKES = Path(__file__).with_name("fakes")
FAKED = ("cuda", "tensorrt", "tensorrt_rtx")
THREADS = """
struct Index { int x, y, z; };
static thread_local Index blockIdx, blockDim, threadIdx;
#define __device__
#define __global__
#include <cmath>
#include "letterbox.cu"
extern "C" void launch(int grid_x, int grid_y, int block_x, int block_y,
    const unsigned char* picture, long long row_stride, long long pixel_stride,
    long long channel_stride, int width, int height, double step_x, double step_y, int columns,
    int rows, unsigned char* frame, int frame_width, int frame_height, unsigned int pad_value) {
    blockDim = {block_x, block_y, 1};
    for (blockIdx.y = 0; blockIdx.y < grid_y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid_x; ++blockIdx.x)
    for (threadIdx.y = 0; threadIdx.y < block_y; ++threadIdx.y)
    for (threadIdx.x = 0; threadIdx.x < block_x; ++threadIdx.x)
        letterbox(picture, row_stride, pixel_stride, channel_stride, width, height, step_x, step_y,
                  columns, rows, frame, frame_width, frame_height, pad_value);
}
"""


class Gpu(NamedTuple):
    """The fake machine's parts."""

    world: Any
    runtime: Any
    driver: Any
    nvrtc: Any
    tensorrt: Any
    tensorrt_rtx: Any


def forget_fakes() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in FAKED]:
        del sys.modules[name]


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """Both TensorRT libraries over a fake GPU, a driver, and an empty cache."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] in FAKED}
    forget_fakes()
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "DRIVER", None)
    runtime, driver, nvrtc = (
        importlib.import_module(f"cuda.bindings.{name}") for name in ("runtime", "driver", "nvrtc")
    )
    libraries = map(importlib.import_module, ("tensorrt", "tensorrt_rtx"))
    yield Gpu(runtime.world, runtime, driver, nvrtc, *libraries)
    forget_fakes()
    sys.modules.update(kept)


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """The text of the CUDA kernel, compiled for the CPU: ``kernel(*grid, *block, *arguments)``."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler to run the kernel's text on the CPU")
    folder = tmp_path_factory.mktemp("kernel")
    source, library = folder / "launch.cpp", folder / "kernel.so"
    source.write_text(THREADS)
    flags = ["-O1", "-ffp-contract=off", "-shared", "-fPIC", f"-I{KERNEL.parent}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    launch = ctypes.CDLL(str(library)).launch
    numbers = (ctypes.c_int,) * 4
    picture = (ctypes.c_void_p, *(ctypes.c_longlong,) * 3, ctypes.c_int, ctypes.c_int)
    scales = (ctypes.c_double, ctypes.c_double, ctypes.c_int, ctypes.c_int)
    frame = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_uint)
    launch.argtypes, launch.restype = (*numbers, *picture, *scales, *frame), None
    run: Callable[..., None] = launch
    return run


@pytest.fixture(scope="session")
def model() -> bytes:
    """The shipped fp32 ONNX graph."""
    bundle = load_bundle("retinaface_mobilenet025")
    artifact = bundle.find("onnx", "fp32")
    assert artifact is not None
    return bundle.open(artifact)


@pytest.fixture(scope="session")
def options() -> Callable[..., RuntimeOptions]:
    """``options(**changes)``: runtime options for frames of any size."""

    def make(**changes: Any) -> RuntimeOptions:
        defaults = {"input_size": None, "input_sizes": (), "exact": True, "threads": 1}
        return RuntimeOptions(**{**defaults, "cache_key": "tiny", **changes})

    return make


@pytest.fixture(scope="session")
def noise() -> Callable[..., NDArray[np.uint8]]:
    """``noise(height, width, count)``: random frames, the same for the same arguments."""

    def make(height: int, width: int, count: int = 1, seed: int = 0) -> NDArray[np.uint8]:
        shape = (count, height, width, 3)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return make
