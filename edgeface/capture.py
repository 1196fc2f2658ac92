"""The capture thread of a stream: it reads ahead, and watches over live sources."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidOptionError, StreamError
from edgeface.video import Frame, Source

MODES = ("latest", "every")
QUEUE = 4
FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0
# A source that minds its own time limit is given this much to report it before it is given up.
GRACE = 0.5
CLOSE_LIMIT = 0.7
RETRY = 0.01

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watchdog:
    """When a live source counts as lost, and how often it is reopened.

    Reopening waits 0.5 s, then twice as long each time, 8 s at most.

    Args:
        timeout: seconds without a frame.
        open_timeout: seconds from opening to the first frame.
        freeze_timeout: seconds with exactly the same picture; None where pictures may stand still,
            as on a captured screen.
        retries: attempts in a row before StreamError.

    Raises:
        InvalidOptionError: a time that is not above 0, or a negative number of retries.
    """

    timeout: float = 2.0
    open_timeout: float = 10.0
    freeze_timeout: float | None = 5.0
    retries: int = 10

    def __post_init__(self) -> None:
        for name in ("timeout", "open_timeout", "freeze_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise InvalidOptionError(f"expected {name} above 0 seconds, got {seconds!r}")
        if self.retries < 0:
            raise InvalidOptionError(f"expected retries of at least 0, got {self.retries!r}")


class NotYetError(Exception):
    """No frame came within the time that ``Capture.take`` was given."""


@dataclass(frozen=True)
class Captured:
    """A frame as it came from the source.

    Attributes:
        image: BGR uint8 (H, W, 3).
        timestamp: seconds from the start of the recording, or from the first frame of a source
            without a time of its own.
        captured: ``time.monotonic()`` of when it came.
        index: its number, counting the dropped ones.
    """

    image: NDArray[np.uint8]
    timestamp: float
    captured: float
    index: int


class Capture:
    """Reads frames in a thread of its own, which starts with the first ``take``.

    Every connection to the source has its own thread and turn. A thread whose turn is over, because
    the source was reopened or the capture closed, lets go of its source and ends. A thread that
    hangs in native code cannot be ended from outside: it is left behind as a daemon and ends as
    soon as the call returns.

    Args:
        open_source: opens the source; may block, may raise StreamError.
        mode: "latest" keeps only the newest frame; "every" keeps a few and then waits.
        realtime: hand out the frames of a recording at its own pace.
        watchdog: limits for a live source.

    Attributes:
        dropped: frames that were replaced by newer ones.
        reconnects: times that a lost source came back.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        mode: str = "latest",
        *,
        realtime: bool = False,
        watchdog: Watchdog | None = None,
    ) -> None:
        if mode not in MODES:
            raise InvalidOptionError(f"expected mode 'latest' or 'every', got {mode!r}")
        self.dropped = self.reconnects = 0
        self._open = open_source
        self._drop = mode == "latest"
        self._room = 1 if self._drop else QUEUE
        self._realtime = realtime
        self._watchdog = watchdog or Watchdog()
        self._state = threading.Condition()
        self._frames: deque[Captured] = deque()
        self._threads: list[threading.Thread] = []
        self._turn = self._index = self._failures = 0
        self._deadline: float | None = None
        self._error: BaseException | None = None
        self._ended = self._lost = False
        self._previous: NDArray[np.uint8] | None = None
        self._start = 0.0

    def take(self, limit: float | None = None) -> Captured | None:
        """Wait for a frame; None at the end and after ``close``.

        Args:
            limit: seconds to wait; None: as long as it takes.

        Raises:
            NotYetError: no frame within the limit.
            StreamError: a live source is lost.
            Exception: whatever else the source raised.
        """
        with self._state:
            self.wait(limit)
            if self._frames:
                self._state.notify_all()
                return self._frames.popleft()
            error, self._error = self._error, None
            if error is not None:
                raise error
            return None

    def wait(self, limit: float | None = None) -> None:
        """Wait until ``take`` has a frame, an error or the end at once; raises NotYetError."""
        until = None if limit is None else time.monotonic() + limit
        with self._state:
            if not self._threads and not self._ended:
                self._connect(0)
            while not self._frames and not self._ended:
                now = time.monotonic()
                if self._deadline is not None and now >= self._deadline:
                    self._lose(self._turn, "expected a frame, but the source hangs")
                    continue
                if until is not None and now >= until:
                    raise NotYetError
                limits = [each - now for each in (self._deadline, until) if each is not None]
                self._state.wait(min(limits, default=None))

    def close(self) -> None:
        """End within a second, and wake a waiting ``take``."""
        self.stop()
        self.join(time.monotonic() + CLOSE_LIMIT)

    def stop(self) -> None:
        """Tell the source to end, and wake a waiting ``take``; returns at once."""
        with self._state:
            self._finish(self._turn)
            self._frames.clear()

    def join(self, until: float) -> None:
        """Wait until the source has let go, or until that time of ``time.monotonic()``."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))

    def _connect(self, delay: float) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._deadline = time.monotonic() + delay + self._watchdog.open_timeout + GRACE
        thread = threading.Thread(
            target=self._run, args=(self._turn, delay), name="edgeface-capture", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _run(self, turn: int, delay: float) -> None:
        try:
            if self._pause(turn, delay):
                source = self._open()
                try:
                    lost = self._pump(turn, source)
                finally:
                    source.close()
                if lost:
                    self._lose(turn, lost)
                else:
                    self._finish(turn)
        except StreamError as error:
            self._lose(turn, str(error))
        except BaseException as error:
            self._finish(turn, error)

    def _pump(self, turn: int, source: Source) -> str | None:
        """Hand on frames until the source ends (None) or is lost (why)."""
        watchdog = self._watchdog
        came = changed = time.monotonic()
        patience = watchdog.open_timeout
        lag: float | None = None
        while True:
            if not self._expect(turn, came + patience + GRACE if source.live else None):
                return None
            frame = source.read()
            now = time.monotonic()
            self._expect(turn, None)
            if frame is None:
                if not source.live:
                    return None
                if now - came > patience:
                    return f"expected a frame within {patience:g} s, got none"
                self._pause(turn, RETRY)
                continue
            repeated = source.live and self._repeats(frame.image)
            if not repeated:
                changed = now
            elif now - changed > (watchdog.freeze_timeout or math.inf):
                return (
                    f"expected the picture to change within {watchdog.freeze_timeout:g} s, got the "
                    "same again and again; where it may stand still, pass "
                    "Watchdog(freeze_timeout=None)"
                )
            if self._realtime and frame.timestamp is not None:
                lag = now - frame.timestamp if lag is None else lag
                self._pause(turn, frame.timestamp + lag - now)
            self._offer(turn, frame, fresh=not repeated)
            came, patience = time.monotonic(), watchdog.timeout

    def _repeats(self, image: NDArray[np.uint8]) -> bool:
        """Whether a frame is the same as the last one, noise included."""
        if self._watchdog.freeze_timeout is None:
            return False
        last, self._previous = self._previous, image.copy()
        return (
            last is not None
            and last.shape == image.shape
            and np.array_equal(last[::16], image[::16])
            and np.array_equal(last, image)
        )

    def _expect(self, turn: int, deadline: float | None) -> bool:
        """Say until when the source must answer; False where this thread's turn is over."""
        with self._state:
            if turn == self._turn:
                self._deadline = deadline
            return turn == self._turn

    def _pause(self, turn: int, seconds: float) -> bool:
        """Wait; False where this thread's turn is over."""
        with self._state:
            return not self._state.wait_for(lambda: turn != self._turn, seconds)

    def _offer(self, turn: int, frame: Frame, fresh: bool) -> None:
        captured = time.monotonic()
        with self._state:
            if not self._drop:
                self._state.wait_for(lambda: turn != self._turn or len(self._frames) < self._room)
            if turn != self._turn:
                return
            if len(self._frames) == self._room:
                self._frames.popleft()
                self.dropped += 1
            if self._index == 0:
                self._start = captured
            timestamp = captured - self._start if frame.timestamp is None else frame.timestamp
            self._frames.append(Captured(frame.image, timestamp, captured, self._index))
            self._index += 1
            self.reconnects += self._lost
            self._lost = False
            if fresh:
                self._failures = 0
            self._state.notify_all()

    def _lose(self, turn: int, reason: str) -> None:
        """Reopen the source, or give up where it never gave a frame or failed too often."""
        with self._state:
            if turn != self._turn:
                return
            if self._index == 0:
                self._finish(turn, StreamError(reason))
                return
            if self._failures == self._watchdog.retries:
                tried = f"; gave up after {self._failures} attempts to reopen the source"
                self._finish(turn, StreamError(reason + tried))
                return
            delay = min(FIRST_DELAY * 2**self._failures, LONGEST_DELAY)
            _logger.warning("%s; reopening the source in %g s", reason, delay)
            self._failures += 1
            self._lost = True
            self._turn += 1
            self._connect(delay)
            self._state.notify_all()

    def _finish(self, turn: int, error: BaseException | None = None) -> None:
        with self._state:
            if turn == self._turn:
                self._turn += 1
                self._ended, self._error, self._deadline = True, error, None
                self._state.notify_all()
