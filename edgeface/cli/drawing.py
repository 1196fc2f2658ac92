"""Pictures and videos written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import write_atomic
from edgeface.errors import InvalidOptionError

DEFAULT_FPS = 25.0


def write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a BGR picture in the format that its suffix names."""
    _, data = cv2.imencode(path.suffix, image)
    write_atomic(path, data.tobytes())


@contextmanager
def video_writer(
    path: Path, fps: float, width: int, height: int
) -> Iterator[Callable[[NDArray[np.uint8]], object]]:
    """Give a function that appends a BGR frame to an MP4 file, which appears at the end.

    Args:
        path: the file.
        fps: frames a second; 0 where it is not known.
        width: pixels of a frame's row.
        height: rows of a frame.

    Raises:
        InvalidOptionError: OpenCV cannot write MPEG-4 video here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(temporary), codec, fps or DEFAULT_FPS, (width, height))
    try:
        if not writer.isOpened():
            raise InvalidOptionError(
                f"expected OpenCV to write {width}x{height} MPEG-4 video to {path}, but it cannot; "
                "leave --out away, or install opencv-python-headless with FFmpeg"
            )
        yield writer.write
        writer.release()
        temporary.replace(path)
    finally:
        writer.release()
        temporary.unlink(missing_ok=True)
