"""Letterboxing: the one way from a picture to a network frame and back.

Detector, evaluation, calibration and training's evaluation all call it, so that a model always
sees the pixels that it was measured on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidOptionError

Size: TypeAlias = tuple[int, int]
InputSize: TypeAlias = int | Size | None

# Pixels of a network frame from which on a face is found about as well as a larger one.
EASY_FACE = 32


@dataclass(frozen=True)
class Letterbox:
    """Where a picture lies in its network frame: at the top left, shrunk by a scale.

    Attributes:
        scale_x: network pixels per picture pixel, horizontally.
        scale_y: network pixels per picture pixel, vertically.
        width: picture width in pixels.
        height: picture height in pixels.
        network_width: frame width in pixels.
        network_height: frame height in pixels.
    """

    scale_x: float
    scale_y: float
    width: int
    height: int
    network_width: int
    network_height: int

    @property
    def content(self) -> Size:
        """(width, height) of the shrunk picture in the frame."""
        return round(self.scale_x * self.width), round(self.scale_y * self.height)


def check_input_size(input_size: object, stride: int, allowed: Sequence[Size] = ()) -> InputSize:
    """Return the input size in plain ints.

    Args:
        input_size: None, a long side in pixels, or (width, height).
        stride: the model's coarsest stride.
        allowed: (width, height) pairs that a static model accepts; empty: any.

    Raises:
        InvalidOptionError: neither of these, or a pair that the model cannot take.
    """
    if input_size is None:
        return None
    if _is_side(input_size):
        return int(input_size)
    if isinstance(input_size, (tuple, list)) and len(input_size) == 2:
        width, height = input_size
        if _is_side(width) and _is_side(height):
            return _check_pair((int(width), int(height)), stride, allowed)
    raise InvalidOptionError(
        "expected input_size None, a positive integer (long side) or (width, height), got "
        f"{input_size!r}"
    )


def _check_pair(size: Size, stride: int, allowed: Sequence[Size]) -> Size:
    width, height = size
    if width % stride or height % stride:
        raise InvalidOptionError(
            f"expected input_size in multiples of the model's stride {stride}, got "
            f"{width}x{height}; use ({_up(width, stride)}, {_up(height, stride)}), or a single "
            "number for the long side"
        )
    if allowed and size not in allowed:
        raise InvalidOptionError(
            "expected input_size among the model's static sizes "
            f"{', '.join(f'{w}x{h}' for w, h in allowed)}, got {width}x{height}; use one of them, "
            "or a single number for the long side"
        )
    return size


def content_size(width: int, height: int, input_size: InputSize) -> Size:
    """Size to which a picture of width x height is shrunk, aspect kept; never enlarged."""
    if input_size is None:
        return width, height
    if isinstance(input_size, tuple):
        scale = min(1.0, input_size[0] / width, input_size[1] / height)
    else:
        scale = min(1.0, input_size / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def sufficient_size(
    width: int, height: int, input_size: InputSize, min_face: int | None
) -> InputSize:
    """Lower the input size as far as faces of interest stay easy to find.

    Args:
        width: picture width in pixels.
        height: picture height in pixels.
        input_size: see ``network_size``; (width, height) stays.
        min_face: side in pixels of the picture of the smallest face of interest; None: any.
    """
    if min_face is None or isinstance(input_size, tuple):
        return input_size
    longest = max(width, height)
    return min(input_size or longest, math.ceil(longest * EASY_FACE / min_face))


def network_size(
    width: int, height: int, input_size: InputSize, stride: int, allowed: Sequence[Size] = ()
) -> Size:
    """Size of the network frame for a picture of width x height.

    Args:
        width: picture width in pixels.
        height: picture height in pixels.
        input_size: None keeps the picture's size; an integer shrinks the long side to it; both are
            padded to the stride. (width, height) is the frame itself.
        stride: the model's coarsest stride.
        allowed: (width, height) pairs that a static model accepts; empty: any. For None and an
            integer the smallest frame that loses no resolution is taken, else the one that loses
            least.

    Returns:
        (width, height) in pixels.

    Raises:
        InvalidOptionError: see ``check_input_size``.
    """
    input_size = check_input_size(input_size, stride, allowed)
    if isinstance(input_size, tuple):
        return input_size
    wanted = content_size(width, height, input_size)
    if not allowed:
        return _up(wanted[0], stride), _up(wanted[1], stride)

    def loss_then_area(size: Size) -> tuple[float, int]:
        return -min(1.0, size[0] / wanted[0], size[1] / wanted[1]), size[0] * size[1]

    return min(allowed, key=loss_then_area)


def place(
    width: int, height: int, input_size: InputSize, stride: int, allowed: Sequence[Size] = ()
) -> Letterbox:
    """Say where a picture of width x height lies in its frame; arguments as of ``network_size``."""
    frame_width, frame_height = network_size(width, height, input_size, stride, allowed)
    fit = content_size(width, height, input_size)
    columns, rows = content_size(*fit, (frame_width, frame_height))
    return Letterbox(columns / width, rows / height, width, height, frame_width, frame_height)


def letterbox(
    image: NDArray[np.uint8],
    input_size: InputSize,
    *,
    stride: int,
    pad_value: tuple[int, int, int],
    allowed: Sequence[Size] = (),
    out: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Put a picture at the top left of a network frame, shrunk where it must be.

    Args:
        image: BGR uint8 (H, W, 3), at least 1 x 1; left as it is.
        input_size: see ``network_size``.
        stride: the model's coarsest stride.
        pad_value: BGR value outside the picture.
        allowed: see ``network_size``.
        out: an earlier frame to write into where its shape fits; must not be in use any more.

    Returns:
        The frame, contiguous uint8 (1, H', W', 3) BGR, which is the image's own memory where that
        is contiguous and has the frame's size; and the way back.

    Raises:
        InvalidOptionError: see ``check_input_size``.
    """
    height, width = image.shape[:2]
    placed = place(width, height, input_size, stride, allowed)
    frame_width, frame_height = placed.network_width, placed.network_height
    columns, rows = placed.content
    fits = (columns, rows) == (width, height) == (frame_width, frame_height)
    if fits and image.flags.c_contiguous:
        return image[None], placed

    shape = (1, frame_height, frame_width, 3)
    frame = out if out is not None and out.shape == shape else np.empty(shape, np.uint8)
    content = frame[0, :rows, :columns]
    if (columns, rows) == (width, height):
        content[...] = image
    else:
        cv2.resize(image, (columns, rows), dst=content, interpolation=cv2.INTER_LINEAR)
    frame[0, :rows, columns:] = pad_value
    frame[0, rows:] = pad_value
    return frame, placed


def _is_side(value: object) -> TypeGuard[int]:
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return integer and int(value) > 0  # type: ignore[call-overload]


def _up(value: int, stride: int) -> int:
    return -(-value // stride) * stride
