"""The driver API: launches the letterbox, which the test compiled for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from threading import get_ident
from typing import Any

from cuda.bindings.runtime import bytes_at, world


class CUresult(IntEnum):
    CUDA_SUCCESS = 0


launched: list[tuple[Any, ...]] = []
kernel: Callable[..., None] | None = None


def cuModuleLoadData(code: bytes) -> Any:
    return CUresult.CUDA_SUCCESS, code


def cuModuleGetFunction(module: bytes, name: bytes) -> Any:
    return CUresult.CUDA_SUCCESS, name


def cuLaunchKernel(
    function: bytes,
    grid_x: int,
    grid_y: int,
    grid_z: int,
    block_x: int,
    block_y: int,
    block_z: int,
    shared: int,
    stream: int,
    parameters: tuple[tuple[Any, ...], tuple[Any, ...]],
    extra: int,
) -> Any:
    assert get_ident() in world.threads, "no GPU is current in this thread"
    values, types = parameters
    assert len(values) == len(types)
    assert function == b"letterbox"
    launched.append(values)
    frame, width, height = values[10:13]
    assert grid_x * block_x >= width and grid_y * block_y >= height

    def run() -> None:
        assert kernel is not None
        bytes_at(frame, 3 * width * height)
        kernel(grid_x, grid_y, block_x, block_y, *values)

    world.streams[int(stream)].put(run)
    return (CUresult.CUDA_SUCCESS,)
