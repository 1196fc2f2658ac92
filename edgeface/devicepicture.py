"""Pictures in the memory of a CUDA device: where their pixels are, without a copy.

Understands ``__cuda_array_interface__`` (CuPy, PyTorch, Numba, PyNvVideoCodec) and DLPack.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from edgeface.errors import InvalidImageError

_CUDA, _CUDA_MANAGED = 2, 13
_LEGACY_STREAM = 1
_UINT8 = (1, 8, 1)
_REMEDY = "pass one picture at a time, channels last: tensor.permute(1, 2, 0)"


class CudaArray(Protocol):
    """An array that says where it lies on a CUDA device."""

    @property
    def __cuda_array_interface__(self) -> Mapping[str, Any]:
        """Address, shape, strides and type."""
        ...


class DlpackArray(Protocol):
    """An array that DLPack can hand over."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and index of its device."""
        ...

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """Return a capsule of it."""
        ...


DeviceArray: TypeAlias = CudaArray | DlpackArray


@dataclass(frozen=True)
class DevicePicture:
    """A uint8 picture on a CUDA device; strides are in bytes.

    Attributes:
        address: of the first pixel's blue.
        width: in pixels.
        height: in pixels.
        row_stride: from a row to the next.
        pixel_stride: from a pixel to the next in its row.
        channel_stride: from blue to green to red; negative for RGB, 0 for grey.
        stream: the CUDA stream that still fills it; None where it is full.
        owner: what keeps the memory.
    """

    address: int
    width: int
    height: int
    row_stride: int
    pixel_stride: int
    channel_stride: int
    stream: int | None
    owner: object

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3), as of a NumPy picture."""
        return self.height, self.width, 3

    def __getitem__(self, part: tuple[slice, slice]) -> DevicePicture:
        """Return a part, as NumPy does: ``picture[y:y + height, x:x + width]``."""
        top, bottom, _ = part[0].indices(self.height)
        left, right, _ = part[1].indices(self.width)
        return replace(
            self,
            address=self.address + top * self.row_stride + left * self.pixel_stride,
            width=right - left,
            height=bottom - top,
        )


def is_device_array(image: object) -> bool:
    """Whether an object is an array in the memory of a CUDA device."""
    if isinstance(image, (np.ndarray, str, bytes)):
        return False
    return hasattr(image, "__cuda_array_interface__") or _on_device(image)


def device_picture(image: Any, color: str = "bgr") -> DevicePicture:
    """Find the pixels of a device array.

    Args:
        image: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), whose alpha is dropped, of any
            strides. It is only read, and must not be written to until the detector returns.
        color: channel order: "bgr" or "rgb".

    Raises:
        InvalidImageError: another dtype or shape, or an array of another GPU than the first.
    """
    if not _on_device(image):
        return _picture(*_from_interface(image.__cuda_array_interface__), image, color)
    index = int(image.__dlpack_device__()[1])
    if index != 0:
        raise InvalidImageError(
            f"expected an array on the first GPU, got one on GPU {index}; copy it to the first, or "
            "choose the GPU with CUDA_VISIBLE_DEVICES"
        )
    capsule = image.__dlpack__(stream=_LEGACY_STREAM)
    return _picture(*_from_capsule(capsule), _LEGACY_STREAM, (image, capsule), color)


def _on_device(image: object) -> bool:
    """Whether DLPack says so; it goes first, for it lets the producer's stream be waited for."""
    tell: Any = getattr(image, "__dlpack_device__", None)
    return callable(tell) and int(tell()[0]) in (_CUDA, _CUDA_MANAGED)


def _from_interface(
    facts: Mapping[str, Any],
) -> tuple[int, str, Sequence[int], Sequence[int], int | None]:
    shape = tuple(facts["shape"])
    dtype = np.dtype(facts["typestr"])
    strides = facts.get("strides") or _dense(shape, dtype.itemsize)
    # Before its version 3 the interface named no stream; work on the default one may be under way.
    stream = facts.get("stream", _LEGACY_STREAM)
    return int(facts["data"][0]), dtype.name, shape, tuple(strides), stream


def _picture(
    address: int,
    dtype: str,
    shape: Sequence[int],
    strides: Sequence[int],
    stream: int | None,
    owner: object,
    color: str,
) -> DevicePicture:
    if dtype != "uint8":
        raise InvalidImageError(
            f"expected a uint8 array, got {dtype} on the GPU; convert it there to values 0..255"
        )
    if len(shape) == 2:
        shape, strides = (*shape, 1), (*strides, 0)
    if len(shape) != 3 or shape[2] not in (1, 3, 4) or 0 in shape:
        raise InvalidImageError(
            "expected an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got "
            f"{tuple(shape)} on the GPU; {_REMEDY}"
        )
    height, width, channels = shape
    row, pixel, channel = strides
    if channels == 1:
        channel = 0
    elif color == "rgb":
        address, channel = address + 2 * channel, -channel
    return DevicePicture(address, width, height, row, pixel, channel, stream, owner)


class _Tensor(ctypes.Structure):
    """``DLTensor`` of DLPack, which opens a capsule's memory; strides count elements."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_capsule(capsule: object) -> tuple[int, str, Sequence[int], Sequence[int]]:
    """Look into a DLPack capsule, which stays its own owner."""
    signature = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    address = signature(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, b"dltensor")
    tensor = _Tensor.from_address(address)
    kind = (tensor.code, tensor.bits, tensor.lanes)
    dtype = "uint8" if kind == _UINT8 else "(code {}, {} bits, {} lanes)".format(*kind)
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else _dense(shape, 1)
    return (tensor.data or 0) + tensor.byte_offset, dtype, shape, strides


def _dense(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
