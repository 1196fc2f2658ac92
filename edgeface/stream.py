"""Streams: frames of a camera, network stream, file or iterable, each with its faces."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeface.capture import Capture, Captured, Watchdog
from edgeface.faces import Faces
from edgeface.results import Results
from edgeface.video import VideoSource, check_source, open_source

if TYPE_CHECKING:
    from edgeface.tracking import Tracker

WINDOW = 600


@dataclass(frozen=True, eq=False)
class StreamResult:
    """One frame of a stream and what was found in it.

    Attributes:
        frame: BGR uint8 (H, W, 3); yours to draw on.
        faces: faces in pixels of the frame.
        timestamp: seconds: the recording's own time; for cameras, live URLs and iterables, the
            time since the first frame.
        captured: ``time.monotonic()`` of when the frame came.
        index: number of the frame in the source, counting the dropped ones.
        dropped: frames dropped so far.
        latency_ms: milliseconds from when the frame came to when its faces were known.
    """

    frame: NDArray[np.uint8]
    faces: Faces
    timestamp: float
    captured: float
    index: int
    dropped: int
    latency_ms: float


@dataclass(frozen=True)
class StreamStats:
    """How a stream runs; fps and latencies are of its last 600 frames.

    Attributes:
        frames: frames handed out.
        dropped: frames that were replaced by newer ones before their turn.
        reconnects: times that a lost source came back.
        fps: frames handed out a second.
        latency_p50_ms: median milliseconds from when a frame came to when its faces were known.
        latency_p95_ms: the same, 95th percentile.
    """

    frames: int
    dropped: int
    reconnects: int
    fps: float
    latency_p50_ms: float
    latency_p95_ms: float

    def __str__(self) -> str:
        return (
            f"{self.frames} frames, {self.dropped} dropped, {self.reconnects} reconnects, "
            f"{self.fps:.1f} fps, latency {self.latency_p50_ms:.1f} ms "
            f"(p95 {self.latency_p95_ms:.1f} ms)"
        )


class Stream(Results[StreamResult]):
    """Frames with their faces, for ``for`` and ``async for``; made by ``Detector.stream``.

    A thread captures, the caller's thread detects. The source is opened with the first frame that
    is asked for. Close the stream, or use it in ``with``: ``close`` takes at most a second, even
    where the source hangs in native code. Then its thread stays behind, as a daemon that holds
    nothing but the source, and ends when the native call returns.

    Args:
        detect: finds the faces of a BGR frame.
        capture: where the frames come from.
        tracker: numbers the faces, and stands in for the detector between its every N-th frame
            and the next; None: no track_ids.
    """

    def __init__(
        self,
        detect: Callable[[NDArray[np.uint8]], Faces],
        capture: Capture,
        tracker: Tracker | None = None,
    ) -> None:
        self._detect = detect
        self._capture = capture
        self._tracker = tracker
        self._frames = 0
        self._recent: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._finalizer = weakref.finalize(self, capture.close)

    @property
    def stats(self) -> StreamStats:
        """Counts so far, frame rate and latency."""
        recent = list(self._recent)
        seconds = recent[-1][0] - recent[0][0] if recent else 0.0
        latencies = [latency for _, latency in recent] or [0.0]
        p50, p95 = np.percentile(latencies, (50, 95))
        return StreamStats(
            frames=self._frames,
            dropped=self._capture.dropped,
            reconnects=self._capture.reconnects,
            fps=(len(recent) - 1) / seconds if seconds else 0.0,
            latency_p50_ms=float(p50),
            latency_p95_ms=float(p95),
        )

    def close(self) -> None:
        """Stop capturing; a loop over the stream ends. A second call does nothing."""
        self._finalizer()

    def wait(self) -> None:
        """Wait until the next frame, the end or an error is there, but leave it there."""
        self._capture.wait()

    def __next__(self) -> StreamResult:
        """Return the next frame with its faces.

        Raises:
            InvalidImageError: the source is no video, or gave something that is no picture.
            StreamError: the camera or URL cannot be opened, or is lost for good.
            InferenceError: the backend failed, or the detector is closed.
        """
        return super().__next__()

    def _advance(self, limit: float | None = None) -> StreamResult | None:
        captured = self._capture.take(limit)
        if captured is None:
            return None
        faces = self._find(captured)
        now = time.monotonic()
        latency = (now - captured.captured) * 1e3
        self._frames += 1
        self._recent.append((now, latency))
        return StreamResult(
            frame=captured.image,
            faces=faces,
            timestamp=captured.timestamp,
            captured=captured.captured,
            index=captured.index,
            dropped=self._capture.dropped,
            latency_ms=latency,
        )

    def _find(self, captured: Captured) -> Faces:
        if self._tracker is None:
            return self._detect(captured.image)
        if self._frames % self._tracker.every:
            return self._tracker.predict(captured.timestamp)
        return self._tracker.update(self._detect(captured.image), captured.timestamp)


def open_stream(
    detect: Callable[[NDArray[np.uint8]], Faces],
    source: VideoSource,
    mode: str = "latest",
    *,
    color: str = "bgr",
    track: bool | Tracker | None = None,
    realtime: bool | None = None,
    watchdog: Watchdog | None = None,
) -> Stream:
    """Make the stream that ``Detector.stream`` describes."""
    capture = open_capture(source, mode, color=color, realtime=realtime, watchdog=watchdog)
    return Stream(detect, capture, _make_tracker(track))


def open_capture(
    source: VideoSource,
    mode: str,
    *,
    color: str,
    realtime: bool | None,
    watchdog: Watchdog | None,
) -> Capture:
    """Make the capture of a stream; arguments as of ``Detector.stream``."""
    check_source(source, color)
    watchdog = watchdog or Watchdog()
    return Capture(
        partial(
            open_source,
            source,
            color=color,
            open_timeout=watchdog.open_timeout,
            timeout=watchdog.timeout,
        ),
        mode,
        realtime=mode == "latest" if realtime is None else realtime,
        watchdog=watchdog,
    )


def _make_tracker(track: bool | Tracker | None) -> Tracker | None:
    if track is not True:
        return track or None
    from edgeface.tracking import Tracker

    return Tracker()
