"""Sources of frames: video files, cameras, network streams, and pictures of the caller's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidImageError, InvalidOptionError, StreamError
from edgeface.imageio import Picture, check_color, read_image, require_file

VideoSource: TypeAlias = int | str | os.PathLike[str] | Iterable[Picture]

# Between two keyframes, damage can make this many reads of a file fail before one works again.
MAX_BAD_READS = 300
DEFAULT_FPS = 25.0
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Frame(NamedTuple):
    """One frame of a source.

    Attributes:
        image: BGR uint8 (H, W, 3).
        timestamp: seconds from the start of the recording; None where the source has no time of
            its own.
    """

    image: NDArray[np.uint8]
    timestamp: float | None


class Source(Protocol):
    """Where frames come from."""

    @property
    def live(self) -> bool:
        """Whether it goes on in real time, and is worth reopening when it stops."""
        ...

    def read(self) -> Frame | None:
        """Return the next frame; None at the end, or where a live source has none this time."""
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...


class Video:
    """An open video file, camera or network stream; iterating reads its remaining frames.

    Frames of a file that are damaged are left out. Where a stream changes its size, OpenCV scales
    the frames to the first one's until the stream is reopened.

    Args:
        source: path of a video or an animated GIF; a camera's index or device file; a URL such as
            rtsp://camera/stream or http://camera/video.mjpg.
        open_timeout: seconds that a URL may take to open.
        timeout: seconds that a URL may take for a frame.

    Attributes:
        width: pixels of a frame's row; 0 where a camera does not say.
        height: rows of a frame; 0 where a camera does not say.
        fps: frames a second; 0 where the source does not say.
        frame_count: frames that the header announces; 0 where it does not say.
        live: True for cameras and for URLs without an end.

    Raises:
        InvalidImageError: the file is missing, or no video that can be decoded.
        StreamError: the camera or URL cannot be opened.
    """

    def __init__(
        self,
        source: int | str | os.PathLike[str],
        *,
        open_timeout: float = 10.0,
        timeout: float = 2.0,
    ) -> None:
        path = file_path(source)
        size = None if path is None else require_file(path, "video")
        self._capture = _open(source, open_timeout, timeout)
        self.fps = max(0.0, float(self._capture.get(cv2.CAP_PROP_FPS)))
        self.frame_count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.live = path is None and self.frame_count == 0
        self._step = 1 / (self.fps or DEFAULT_FPS)
        self._timestamp = -self._step
        self._ahead = None if self.live else self._next()
        if path is None and not self._capture.isOpened():
            raise StreamError(
                f"expected to open {_name(source)}, but it cannot be opened; check that it is "
                "connected, not in use elsewhere, and that you may read it"
            )
        if path is not None and self._ahead is None:
            self.close()
            raise InvalidImageError(
                f"expected a video that OpenCV can decode, got {path} of {size} bytes; "
                "convert it to MP4 with H.264"
            )
        if self._ahead is not None:
            self.height, self.width = self._ahead.image.shape[:2]
        else:
            self.width = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
            self.height = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))

    def read(self) -> Frame | None:
        """Return the next frame; None at the end, or where a live source has none this time."""
        ahead, self._ahead = self._ahead, None
        return self._next() if ahead is None else ahead

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield each frame, BGR uint8 (height, width, 3)."""
        while (frame := self.read()) is not None:
            yield frame.image

    def close(self) -> None:
        """Close the source."""
        self._capture.release()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> Frame | None:
        for _ in range(1 if self.live else MAX_BAD_READS):
            image = self._decode()
            if image is not None:
                return Frame(image, None if self.live else self._tell())
        return None

    def _decode(self) -> NDArray[np.uint8] | None:
        try:
            whole, image = self._capture.read()
        except cv2.error:
            return None
        return np.asarray(image, np.uint8) if whole else None

    def _tell(self) -> float:
        """Seconds of the frame that was read last; they grow even where the file's do not."""
        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if not seconds > self._timestamp:
            seconds = self._timestamp + self._step
        self._timestamp = seconds
        return seconds


class Pictures:
    """The pictures of an iterable, as a source; each is copied, so that its owner may reuse it.

    Args:
        pictures: what ``Detector`` takes, one after another.
        color: channel order of arrays: "bgr" or "rgb".
    """

    live = False

    def __init__(self, pictures: Iterable[Picture], color: str = "bgr") -> None:
        self._pictures = iter(pictures)
        self._color = color

    def read(self) -> Frame | None:
        """Return the next picture; None at the end."""
        for picture in self._pictures:
            image = read_image(picture, self._color)
            return Frame(image.copy() if isinstance(picture, np.ndarray) else image, None)
        return None

    def close(self) -> None:
        """Do nothing: the iterable is the caller's."""


def check_source(source: VideoSource, color: str = "bgr") -> None:
    """Refuse what ``open_source`` cannot open, as far as that shows without opening it.

    Raises:
        InvalidImageError: the file is missing.
        InvalidOptionError: no source, or unknown color.
    """
    check_color(color)
    if isinstance(source, (int, str, os.PathLike)) and not isinstance(source, bool):
        path = file_path(source)
        if path is not None:
            require_file(path, "video")
    elif isinstance(source, (bool, bytes, np.ndarray)) or not isinstance(source, Iterable):
        raise InvalidOptionError(
            "expected a camera index, a path, a URL or an iterable of pictures, got "
            f"{type(source).__name__}; for one picture, call the detector with it"
        )


def open_source(
    source: VideoSource, *, color: str = "bgr", open_timeout: float = 10.0, timeout: float = 2.0
) -> Source:
    """Open a camera index, path or URL as ``Video``, an iterable of pictures as ``Pictures``."""
    if isinstance(source, (int, str, os.PathLike)):
        return Video(source, open_timeout=open_timeout, timeout=timeout)
    return Pictures(source, color)


def file_path(source: int | str | os.PathLike[str]) -> Path | None:
    """Return the path of a source that is a file; None for a camera or a URL."""
    if isinstance(source, int) or _URL.match(os.fspath(source)):
        return None
    path = Path(source)
    return None if path.is_char_device() else path


def _open(
    source: int | str | os.PathLike[str], open_timeout: float, timeout: float
) -> cv2.VideoCapture:
    if isinstance(source, int):
        return cv2.VideoCapture(source)
    address = os.fspath(source)
    if not _URL.match(address):
        return cv2.VideoCapture(address)
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(open_timeout * 1e3),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(timeout * 1e3),
    ]
    return cv2.VideoCapture(address, cv2.CAP_ANY, limits)


def _name(source: int | str | os.PathLike[str]) -> str:
    return f"the camera {source}" if isinstance(source, int) else os.fspath(source)


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
