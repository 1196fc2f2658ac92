"""Several cameras on one detector: the newest frame of each in turn, results with their names."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeface.capture import CLOSE_LIMIT, Capture, NotYetError, Watchdog
from edgeface.errors import InferenceError, InvalidOptionError, StreamError
from edgeface.faces import Faces
from edgeface.lanes import Lanes
from edgeface.results import Results
from edgeface.stream import Stream, StreamResult, StreamStats, open_capture
from edgeface.tracking import Tracker
from edgeface.video import VideoSource

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CameraResult(StreamResult):
    """One frame of one of several cameras; index, dropped and timestamp are the camera's own.

    Attributes:
        camera: its name.
    """

    camera: str


class Cameras(Results[CameraResult]):
    """Frames of several cameras with their faces, as they are ready; made by ``Detector.cameras``.

    Each camera has two threads: one captures, one waits for the camera's turn, takes the newest
    frame and detects. A camera has one frame in work or waiting for you at a time, so memory stays
    bounded, its results come in order, and a fast camera cannot crowd out a slow one. Where you are
    slower than the detector, frames are dropped before they cost anything.

    A camera that fails or ends does not stop the others. The loop ends after the last. Close the
    cameras, or use them in ``with``: ``close`` takes at most a second, lets the frames in work
    finish and leaves no thread, even where a source hangs in native code; then its thread stays
    behind, as that of a ``Stream``.

    Args:
        detect: finds the faces of a BGR frame; called from several threads.
        captures: where the frames come from, by camera.
        trackers: number the faces of those cameras that have one.
        turns: frames that are detected at the same time.

    Attributes:
        errors: what ended a camera that failed, by camera.
    """

    def __init__(
        self,
        detect: Callable[[NDArray[np.uint8]], Faces],
        captures: Mapping[str, Capture],
        trackers: Mapping[str, Tracker],
        turns: int,
    ) -> None:
        self.errors: dict[str, Exception] = {}
        self._streams = {
            name: Stream(detect, capture, trackers.get(name)) for name, capture in captures.items()
        }
        self._desk = _Desk(self._streams, captures, turns, self.errors)
        self._finalizer = weakref.finalize(self, self._desk.close)

    @property
    def stats(self) -> dict[str, StreamStats]:
        """Counts so far, frame rate and latency, by camera."""
        return {name: stream.stats for name, stream in self._streams.items()}

    def close(self) -> None:
        """Stop all cameras; a loop over them ends. A second call does nothing."""
        self._finalizer()

    def __next__(self) -> CameraResult:
        """Return the frame that was ready first, with its faces.

        Raises:
            StreamError: every camera failed; ``errors`` has each one's reason.
            InferenceError: this process is a fork of the one that opened the cameras.
        """
        return super().__next__()

    def _advance(self, limit: float | None = None) -> CameraResult | None:
        return self._desk.take(limit)


class _Desk:
    """Where the cameras' threads leave results, one each, and the caller takes them."""

    def __init__(
        self,
        streams: Mapping[str, Stream],
        captures: Mapping[str, Capture],
        turns: int,
        errors: dict[str, Exception],
    ) -> None:
        self._streams, self._captures, self._errors = streams, captures, errors
        self._turns = Lanes(turns)
        self._news = threading.Condition()
        self._ready: dict[str, CameraResult] = {}
        self._running: set[str] | None = None
        self._closed = self._told = False
        self._threads: list[threading.Thread] = []
        self._process = os.getpid()

    def take(self, limit: float | None) -> CameraResult | None:
        """Wait for the result that has waited longest; None after the last camera's end."""
        if os.getpid() != self._process:
            raise InferenceError(
                "expected the process that opened the cameras, got a fork of it, in which their "
                "threads are missing; open them after the fork"
            )
        with self._news:
            if self._running is None and not self._closed:
                self._start()
            if not self._news.wait_for(lambda: self._ready or self._over(), limit):
                raise NotYetError
            if self._ready:
                result = self._ready.pop(next(iter(self._ready)))
                self._news.notify_all()
                return result
            failed = not self._closed and len(self._errors) == len(self._streams)
            if failed and not self._told:
                self._told = True
                told = "; ".join(f"{name}: {error}" for name, error in self._errors.items())
                raise StreamError(f"expected a camera that goes on, but every one failed: {told}")
            return None

    def close(self) -> None:
        if os.getpid() != self._process:
            return
        until = time.monotonic() + CLOSE_LIMIT
        with self._news:
            self._closed = True
            self._ready.clear()
            self._news.notify_all()
        for capture in self._captures.values():
            capture.stop()
        for capture in self._captures.values():
            capture.join(until)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))

    def _over(self) -> bool:
        return self._closed or not self._running

    def _start(self) -> None:
        self._running = set()
        for name in self._streams:
            thread = threading.Thread(
                target=self._run, args=(name,), name=f"edgeface-camera-{name}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
            self._running.add(name)

    def _run(self, name: str) -> None:
        stream = self._streams[name]
        try:
            while self._is_taken(name):
                stream.wait()
                with self._turns.take():
                    result = next(stream, None)
                if result is None:
                    break
                self._offer(CameraResult(**vars(result), camera=name))
        except Exception as error:
            _logger.warning("camera '%s' failed: %s", name, error)
            self._errors[name] = error
        stream.close()
        with self._news:
            assert self._running is not None
            self._running.discard(name)
            self._news.notify_all()

    def _is_taken(self, name: str) -> bool:
        """Wait until the camera's last result was taken; False where all is over."""
        with self._news:
            self._news.wait_for(lambda: self._closed or name not in self._ready)
            return not self._closed

    def _offer(self, result: CameraResult) -> None:
        with self._news:
            if not self._closed:
                self._ready[result.camera] = result
                self._news.notify_all()


def open_cameras(
    detect: Callable[[NDArray[np.uint8]], Faces],
    sources: Mapping[str, VideoSource],
    mode: str = "latest",
    *,
    turns: int = 1,
    color: str = "bgr",
    track: bool | Mapping[str, Tracker] = False,
    realtime: bool | None = None,
    watchdog: Watchdog | None = None,
) -> Cameras:
    """Make the cameras that ``Detector.cameras`` describes."""
    if not isinstance(sources, Mapping) or not sources:
        raise InvalidOptionError(
            "expected cameras by name, such as {'door': 0, 'yard': 'rtsp://camera/stream'}, "
            f"got {sources!r}"
        )
    if isinstance(track, Mapping):
        if strange := sorted(set(track) - set(sources)):
            raise InvalidOptionError(
                f"expected trackers of the cameras {list(sources)}, got one of {strange}"
            )
        if len({id(tracker) for tracker in track.values()}) < len(track):
            raise InvalidOptionError("expected a tracker for each camera, got one for several")
        trackers = dict(track)
    else:
        trackers = {name: Tracker() for name in sources} if track else {}
    captures = {
        name: open_capture(source, mode, color=color, realtime=realtime, watchdog=watchdog)
        for name, source in sources.items()
    }
    return Cameras(detect, captures, trackers, turns)
