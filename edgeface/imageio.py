"""Reading pictures: path, bytes, array or PIL picture to BGR uint8."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.devicepicture import DeviceArray, is_device_array
from edgeface.errors import InvalidImageError, InvalidOptionError
from edgeface.imageheader import declared_size, is_cut


class PilPicture(Protocol):
    """What edgeface uses of a PIL picture; PIL itself is never imported."""

    @property
    def mode(self) -> str:
        """Pixel format."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        ...

    def convert(self, mode: str, /) -> Any:
        """Return the picture in another pixel format."""
        ...


Picture: TypeAlias = str | os.PathLike[str] | bytes | NDArray[np.uint8] | PilPicture | DeviceArray
COLORS = ("bgr", "rgb")
MAX_PIXELS = 100_000_000
PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEOS = frozenset({".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})
_HIGH_DEPTH_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def read_image(
    source: Picture, color: str = "bgr", max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read a picture.

    Args:
        source: path of a picture file; its bytes; uint8 array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4), whose alpha is dropped; or a PIL picture, taken as PIL shows it. The EXIF
            orientation of files and bytes is applied, so that the picture stands upright.
        color: channel order of an array: "bgr", as OpenCV reads, or "rgb". Files, bytes and PIL
            pictures know theirs.
        max_pixels: largest width x height that a file may declare, checked before it is decoded.

    Returns:
        BGR uint8 (H, W, 3), at least 1 x 1. It may be the caller's own array: do not write to it.

    Raises:
        InvalidImageError: the source is no picture: missing, truncated, of another dtype or shape.
        InvalidOptionError: unknown color.
    """
    check_color(color)
    if isinstance(source, np.ndarray):
        return _from_array(source, color)
    if isinstance(source, (str, os.PathLike)):
        return _from_file(Path(os.fsdecode(source)), max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), f"{len(source)} bytes", max_pixels)
    if hasattr(source, "mode") and hasattr(source, "convert"):
        return _from_pil(source)  # type: ignore[arg-type]
    if is_device_array(source):
        raise InvalidImageError(
            "expected a picture in the memory of the CPU, got one in that of a GPU; copy it "
            "(tensor.cpu().numpy(), cupy.asnumpy(array)), or call Detector('tensorrt') with it"
        )
    raise InvalidImageError(
        "expected a path, bytes, a NumPy array or a PIL picture, got "
        f"{type(source).__name__}; convert it with numpy.asarray"
    )


def check_color(color: str) -> str:
    """Return the channel order, or raise InvalidOptionError where it is unknown."""
    if color not in COLORS:
        raise InvalidOptionError(f"expected color 'bgr' or 'rgb', got {color!r}")
    return color


def _from_array(image: NDArray[Any], color: str) -> NDArray[np.uint8]:
    if image.dtype != np.uint8:
        raise InvalidImageError(
            f"expected a uint8 array, got {image.dtype}; {_dtype_remedy(image.dtype)}"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise InvalidImageError(
            f"expected an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got "
            f"{image.shape}; pass one picture at a time, or a list of pictures, channels last"
        )
    if 0 in image.shape:
        raise InvalidImageError(
            f"expected at least one pixel, got an array of shape {image.shape}; check the crop or "
            "the capture that it comes from"
        )
    if image.shape[2] == 1:
        return _bgr(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 4:
        return _bgr(image, cv2.COLOR_BGRA2BGR if color == "bgr" else cv2.COLOR_RGBA2BGR)
    return image if color == "bgr" else _bgr(image, cv2.COLOR_RGB2BGR)


def _bgr(image: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, code), np.uint8)


def _dtype_remedy(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return (
            "convert it with (image * 255).clip(0, 255).astype('uint8') where values are 0..1, "
            "or image.clip(0, 255).astype('uint8') where they are 0..255"
        )
    if dtype == np.uint16:
        return "convert it with (image // 257).astype('uint8') where all 16 bits are used"
    if dtype.kind == "b":
        return "convert it with image.astype('uint8') * 255"
    return "convert it to values 0..255 with .astype('uint8')"


def require_file(path: Path, kind: str) -> int:
    """Return a file's size in bytes, or raise InvalidImageError where there is no plain file."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InvalidImageError(
            f"expected a {kind} file, but {path} does not exist; check the path"
        ) from error
    except (OSError, ValueError) as error:
        raise InvalidImageError(
            f"expected a {kind} file, but it cannot be read ({error}); check path and permissions"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise InvalidImageError(
            f"expected a {kind} file, got the folder {path}; pass the files in it"
        )
    if not stat.S_ISREG(status.st_mode):
        raise InvalidImageError(f"expected a {kind} file, got the device or pipe {path}")
    return status.st_size


def _from_file(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    size = require_file(path, "picture")
    if size > 4 * max_pixels:
        raise InvalidImageError(
            f"expected a picture file of at most {4 * max_pixels} bytes, got {path} of {size}; "
            "is it a video?"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidImageError(
            f"expected a picture file, but it cannot be read ({error}); check its permissions"
        ) from error
    return _decode(data, str(path), max_pixels)


def _decode(data: bytes, name: str, max_pixels: int) -> NDArray[np.uint8]:
    size = declared_size(data)
    if size is not None and size[0] * size[1] > max_pixels:
        raise InvalidImageError(
            f"expected at most {max_pixels} pixels, got a picture that declares "
            f"{size[0]}x{size[1]} ({name}); shrink it first"
        )
    image = None
    if size is not None and not is_cut(data):
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
    if image is None:
        raise InvalidImageError(
            "expected a whole picture (JPEG, PNG, WebP, GIF, BMP, TIFF or Netpbm), got "
            f"{_what_came(data, size)} ({name}); copy or download the file again"
        )
    return np.asarray(image, np.uint8)


def _what_came(data: bytes, size: tuple[int, int] | None) -> str:
    if not data:
        return "nothing: the file is empty"
    if size is not None:
        return f"a truncated or damaged picture of {size[0]}x{size[1]}"
    return f"no known picture format, starting with {data[:8]!r}"


def _from_pil(picture: PilPicture) -> NDArray[np.uint8]:
    if picture.mode in _HIGH_DEPTH_MODES:
        raise InvalidImageError(
            f"expected a PIL picture of 8 bits a channel, got mode {picture.mode!r}; scale its "
            "values to 0..255 and convert it with .convert('L')"
        )
    if 0 in picture.size:
        raise InvalidImageError(f"expected at least one pixel, got a PIL picture {picture.size}")
    try:
        return _bgr(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2BGR)
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidImageError(
            f"expected a whole PIL picture, but it cannot be decoded: {error}; "
            "copy or download the file again"
        ) from error
