"""The live preview: one thread detects and draws, any number of viewers read the last picture."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.detector import Detector
from edgeface.errors import StreamError
from edgeface.faces import Faces
from edgeface.server.stats import Stats
from edgeface.stream import Stream, StreamResult
from edgeface.video import file_path

BOUNDARY = "edgeface-frame"
JPEG_QUALITY = 80
LONG_SIDE = 1280
RETRY_SECONDS = 5.0
# A recording of one frame is not played faster than this.
SHORTEST_ROUND = 0.04


def above(faces: Faces, threshold: float) -> Faces:
    """Return the faces that score above a threshold."""
    return faces[faces.scores > threshold]


class Live:
    """Detects on a source's newest frames in a thread, and hands the drawn ones to viewers.

    A recording starts again at its end. A camera that is lost for good is tried again every five
    seconds.

    Args:
        detector: finds the faces, down to the lowest threshold that the page offers.
        source: camera index, path or URL.
        threshold: scores above it are shown.

    Attributes:
        name: what the source is called in public.
        threshold: may be changed at any time.
        viewers: streams that are being read.
        state: "starting", "running" or "failed".
    """

    def __init__(self, detector: Detector, source: int | str, threshold: float) -> None:
        self.name = source_name(source)
        self.threshold = threshold
        self.viewers = 0
        self.state = "starting"
        self._detector, self._source = detector, source
        self._stats = Stats()
        self._error: Exception | None = None
        self._size: tuple[int, int] | None = None
        self._dropped = 0
        self._stream: Stream | None = None
        self._started, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeface-live", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._number, self._jpeg = 0, b""

    def start(self) -> None:
        """Start, and wait for the first frame.

        Raises:
            InvalidImageError: the file is missing, or no video.
            StreamError: the camera or URL cannot be opened.
        """
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self.close()
            raise self._error

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop on which viewers read."""
        self._loop = loop

    def stop(self) -> None:
        """End every viewer's stream; returns at once, and is safe in a signal handler."""
        self._stopping.set()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish, b"")

    def close(self) -> None:
        """Let go of the source; takes at most a second, even where the source hangs."""
        self.stop()
        if self._stream is not None:
            self._stream.close()
        self._thread.join(0.3)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body of a multipart/x-mixed-replace response, always the newest picture.

        A viewer that is slower than the source misses pictures. The boundary follows each picture
        at once, so that a browser shows it without waiting for the next one.
        """
        self.viewers += 1
        seen = self._number
        try:
            yield f"--{BOUNDARY}\r\n".encode()
            while True:
                if seen == self._number:
                    await self._news.wait()
                if self._stopping.is_set():
                    return
                seen, jpeg = self._number, self._jpeg
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                yield head.encode() + jpeg + f"\r\n--{BOUNDARY}\r\n".encode()
        finally:
            self.viewers -= 1

    def describe(self) -> dict[str, Any]:
        """Return the source's state, the threshold and the figures, as plain JSON types."""
        return {
            "source": self.name,
            "state": self.state,
            "message": str(self._error or "").replace(str(self._source), self.name),
            "size": self._size,
            "dropped": self._dropped,
            "viewers": self.viewers,
            "threshold": self.threshold,
            **self._stats.snapshot(),
        }

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                pause = self._play()
            except Exception as error:
                self.state, self._error = "failed", error
                pause = RETRY_SECONDS
                if not self._started.is_set():
                    break
            self._stopping.wait(pause)
        self._started.set()

    def _play(self) -> float:
        """Play the source to its end, and return the seconds to wait before the next time."""
        dropped = self._dropped
        with self._detector.stream(self._source) as self._stream:
            for result in self._stream:
                if self._stopping.is_set():
                    break
                self._dropped = dropped + result.dropped
                self._show(result)
        if file_path(self._source) is None and not self._stopping.is_set():
            raise StreamError(f"expected {self.name} to go on, but it ended; check the source")
        return SHORTEST_ROUND

    def _show(self, result: StreamResult) -> None:
        shown = above(result.faces, self.threshold)
        self._stats.add(result.latency_ms, len(shown))
        self._size = (result.frame.shape[1], result.frame.shape[0])
        self.state, self._error = "running", None
        self._started.set()
        if self.viewers and self._loop is not None:
            jpeg = encode(shown.draw(result.frame))
            self._loop.call_soon_threadsafe(self._publish, jpeg)

    def _publish(self, jpeg: bytes) -> None:
        self._number, self._jpeg = self._number + 1, jpeg
        news, self._news = self._news, asyncio.Event()
        news.set()


def source_name(source: int | str) -> str:
    """Return what a source may be called in public: no folders, and no password of a URL."""
    path = file_path(source)
    if path is not None:
        return path.name
    if isinstance(source, int):
        return f"camera {source}"
    url = urlsplit(source)
    return urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment=""))


def encode(image: NDArray[np.uint8]) -> bytes:
    """Return a BGR picture as JPEG, its long side shrunk to ``LONG_SIDE``."""
    scale = LONG_SIDE / max(image.shape[:2])
    if scale < 1:
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        image = np.asarray(resized, np.uint8)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return jpeg.tobytes()
