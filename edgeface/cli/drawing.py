"""Pictures and videos written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import write_atomic
from edgeface.errors import InvalidOptionError, OutputError

DEFAULT_FPS = 25.0
# Kept free on the disk, for the index that an MP4 file ends with and for what the encoder holds.
DISK_RESERVE = 4 << 20


def write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a BGR picture in the format that its suffix names."""
    _, data = cv2.imencode(path.suffix, image)
    write_atomic(path, data.tobytes())


@contextmanager
def video_writer(
    path: Path, fps: float, width: int, height: int, *, keep_partial: bool = False
) -> Iterator[Callable[[NDArray[np.uint8]], object]]:
    """Give a function that appends a BGR frame to an MP4 file, which appears at the end.

    Frames of another size are scaled to the first's.

    Args:
        path: the file.
        fps: frames a second; 0 where it is not known.
        width: pixels of a frame's row.
        height: rows of a frame.
        keep_partial: let the file appear with the frames so far also where the work is broken off.

    Raises:
        InvalidOptionError: OpenCV cannot write MPEG-4 video here.
        OutputError: the disk is full, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(temporary), codec, fps or DEFAULT_FPS, (width, height))
    written = 0

    def append(image: NDArray[np.uint8]) -> None:
        nonlocal written
        if shutil.disk_usage(path.parent).free < image.nbytes + DISK_RESERVE:
            raise OutputError(
                f"expected room in {path.parent} for another frame, but the disk is full after "
                f"{written} frames; free some space, or write to another disk"
            )
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, (width, height)), np.uint8)
        writer.write(image)
        written += 1

    try:
        if not writer.isOpened():
            raise InvalidOptionError(
                f"expected OpenCV to write {width}x{height} MPEG-4 video to {path}, but it cannot; "
                "leave --out away, or install opencv-python-headless with FFmpeg"
            )
        whole = False
        try:
            yield append
            whole = True
        finally:
            writer.release()
            if whole or (keep_partial and written):
                temporary.replace(path)
    finally:
        writer.release()
        temporary.unlink(missing_ok=True)
