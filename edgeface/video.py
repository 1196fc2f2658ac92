"""Frames of a video file or an animated GIF."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidImageError
from edgeface.imageio import require_file


class Video:
    """An open video file; iterating reads its remaining frames.

    Attributes:
        path: the file.
        width: pixels of a frame's row.
        height: rows of a frame.
        fps: frames a second; 0 where the file does not say.
        frame_count: frames that the header announces; 0 where it does not say.

    Raises:
        InvalidImageError: the file is missing, or no video that can be decoded.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        require_file(self.path, "video")
        self._capture = cv2.VideoCapture(str(self.path))
        first = self._read()
        if first is None:
            self.close()
            raise InvalidImageError(
                f"expected a video that OpenCV can decode, got {self.path}; "
                "convert it to MP4 with H.264"
            )
        self._next: NDArray[np.uint8] | None = first
        self.height, self.width = first.shape[:2]
        self.fps = max(0.0, float(self._capture.get(cv2.CAP_PROP_FPS)))
        self.frame_count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield each frame, BGR uint8 (height, width, 3)."""
        while self._next is not None:
            frame, self._next = self._next, self._read()
            yield frame

    def _read(self) -> NDArray[np.uint8] | None:
        whole, frame = self._capture.read()
        return np.asarray(frame, np.uint8) if whole else None

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def is_video(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file holds more than one frame that OpenCV can decode.

    Raises:
        InvalidImageError: there is no such file.
    """
    require_file(Path(path), "video")
    capture = cv2.VideoCapture(str(path))
    try:
        return all(capture.read()[0] for _ in range(2))
    finally:
        capture.release()
