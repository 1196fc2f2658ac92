"""The capture thread on scripted sources: the watchdog, and closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Faces, capture
from edgeface.capture import Capture, Watchdog
from edgeface.errors import InvalidOptionError, StreamError
from edgeface.stream import Stream, StreamResult
from edgeface.video import Frame

FAST = Watchdog(timeout=0.1, open_timeout=0.3, freeze_timeout=0.1, retries=2)


def grey(value: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def no_faces(image: NDArray[np.uint8]) -> Faces:
    return Faces.empty()


def level(result: StreamResult) -> int:
    return round(float(result.frame.mean()))


@dataclass
class Scripted:
    """A live source that does what its script says: a frame, nothing, an event to wait for.

    At its end it repeats the last step.
    """

    script: list[Any]
    closed: int = 0
    live = True

    def read(self) -> Frame | None:
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, threading.Event):
            step.wait(10)
            step = self.script.pop(0) if len(self.script) > 1 else None
        return None if step is None else Frame(step.copy(), None)

    def close(self) -> None:
        self.closed += 1


@dataclass
class Plug:
    """Opens one scripted source after another; each only once the last is closed or hangs."""

    sources: list[Any]
    opened: list[Scripted] = field(default_factory=list)

    def __call__(self) -> Scripted:
        source = self.sources.pop(0) if self.sources else StreamError("unplugged")
        if isinstance(source, Exception):
            raise source
        self.opened.append(source)
        return source  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FIRST_DELAY", 0.01)


@pytest.fixture(autouse=True)
def _no_thread_outlives_its_stream() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 3
    while capture_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not capture_threads()


def capture_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edgeface-capture"]


def make(sources: list[Any], mode: str = "every", watchdog: Watchdog = FAST) -> Stream:
    return Stream(no_faces, Capture(Plug(sources), mode, watchdog=watchdog))


def test_a_source_without_frames_is_reopened() -> None:
    first, second = Scripted([grey(1), grey(2), None]), Scripted([grey(3), grey(4), None])
    plug = Plug([first, StreamError("still unplugged"), second])
    with Stream(no_faces, Capture(plug, "every", watchdog=FAST)) as stream:
        results = [next(stream) for _ in range(4)]
        assert [level(result) for result in results] == [1, 2, 3, 4]
        assert [result.index for result in results] == [0, 1, 2, 3]
        assert results[2].timestamp > results[1].timestamp + FAST.timeout
        assert stream.stats.reconnects == 1
        assert first.closed == 1
    assert second.closed == 1


def test_a_hiccup_is_no_loss() -> None:
    source = Scripted([grey(1), None, None, grey(2), None, grey(3)])
    with make([source]) as stream:
        assert [level(next(stream)) for _ in range(3)] == [1, 2, 3]
        assert stream.stats.reconnects == 0


def test_after_too_many_attempts_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with make([Scripted([grey(1), None])]) as stream:
        next(stream)
        with pytest.raises(StreamError, match="unplugged; gave up after 2 attempts"):
            next(stream)
        assert list(stream) == []
        assert stream.stats.reconnects == 0
    delays = [record.getMessage().rsplit("reopening", 1)[1] for record in caplog.records]
    assert delays == [" the source in 0.01 s", " the source in 0.02 s"]


def test_the_wait_between_attempts_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capture, "LONGEST_DELAY", 0.03)
    with make([Scripted([grey(1), None])], watchdog=Watchdog(timeout=0.05, retries=4)) as stream:
        next(stream)
        with pytest.raises(StreamError):
            next(stream)
    delays = [float(record.getMessage().split()[-2]) for record in caplog.records]
    assert delays == [0.01, 0.02, 0.03, 0.03]


def test_success_forgives_earlier_failures() -> None:
    sources = [Scripted([grey(number), None]) for number in range(6)]
    with make([*sources]) as stream:
        assert [level(next(stream)) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
        assert stream.stats.reconnects == 5


def test_a_frozen_camera_is_reopened_even_where_its_frames_are_drawn_on() -> None:
    drawn = threading.Semaphore(1)

    class Frozen(Scripted):
        def read(self) -> Frame | None:
            drawn.acquire(timeout=5)
            return super().read()

    with make([Frozen([grey(2)]), Scripted([grey(3), grey(4)])]) as stream:
        started = time.monotonic()
        while level(result := next(stream)) < 3:
            result.frame[:] = 0
            drawn.release()
            assert time.monotonic() - started < 5
        assert stream.stats.reconnects == 1


def test_a_picture_that_never_changes_again_is_an_error() -> None:
    with make([Scripted([grey(1)]) for _ in range(5)]) as stream:
        with pytest.raises(StreamError, match="freeze_timeout=None") as caught:
            for _ in stream:
                pass
        assert "gave up after 2 attempts" in str(caught.value)
        assert stream.stats.reconnects == 2


def test_still_pictures_can_be_allowed() -> None:
    watchdog = Watchdog(timeout=0.1, freeze_timeout=None)
    with make([Scripted([grey(1)])], watchdog=watchdog) as stream:
        started = time.monotonic()
        while time.monotonic() - started < 0.4:
            next(stream)
        assert stream.stats.reconnects == 0


def test_a_source_that_hangs_is_left_behind_and_replaced() -> None:
    hang = threading.Event()
    stuck, fresh = Scripted([grey(1), hang, grey(77)]), Scripted([grey(2), grey(3)])
    watchdog = Watchdog(timeout=0.1, freeze_timeout=None)
    with make([stuck, fresh], watchdog=watchdog) as stream:
        assert [level(next(stream)) for _ in range(3)] == [1, 2, 3]
        assert stream.stats.reconnects == 1
        assert stuck.closed == 0
        hang.set()
        wait_until(lambda: stuck.closed == 1)
        assert 77 not in [level(next(stream)) for _ in range(10)]
        assert len(capture_threads()) == 1


def test_back_pressure_is_not_taken_for_a_loss() -> None:
    script = [step for value in range(1, 200) for step in (grey(value), None)]
    with make([Scripted(script)]) as stream:
        next(stream)
        time.sleep(3 * FAST.timeout)
        assert [level(next(stream)) for _ in range(20)] == list(range(2, 22))
        assert stream.stats.reconnects == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (StreamError("no such camera"), "no such camera"),
        (Scripted([None]), "expected a frame within 0.3 s, got none"),
    ],
)
def test_a_source_that_never_works_is_refused_at_once(source: Any, message: str) -> None:
    with make([source]) as stream, pytest.raises(StreamError, match=message):
        next(stream)


def test_opening_that_hangs() -> None:
    hang = threading.Event()
    source = Scripted([grey(1)])

    def slow_open() -> Scripted:
        hang.wait(10)
        return source

    with Stream(no_faces, Capture(slow_open, watchdog=FAST)) as stream:
        with pytest.raises(StreamError, match="hangs"):
            next(stream)
        hang.set()
        wait_until(lambda: source.closed == 1)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"open_timeout": -1}, {"freeze_timeout": 0}, {"retries": -1}]
)
def test_wrong_limits(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        Watchdog(**options)


def test_close_while_the_source_hangs() -> None:
    hang = threading.Event()
    source = Scripted([grey(1), grey(2), hang, grey(3)])
    stream = make([source], watchdog=Watchdog())
    next(stream)
    wait_until(lambda: len(source.script) == 1)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 1
    assert list(stream) == []
    hang.set()
    wait_until(lambda: source.closed == 1)


def test_close_ends_a_loop_of_another_thread() -> None:
    hang = threading.Event()
    source = Scripted([grey(1), hang])
    stream = make([source], watchdog=Watchdog(timeout=60))
    got: list[int] = []
    entered = threading.Event()

    def loop() -> None:
        for result in stream:
            got.append(level(result))
            entered.set()

    thread = threading.Thread(target=loop)
    thread.start()
    assert entered.wait(5)
    hang_later = threading.Timer(0.05, hang.set)
    hang_later.start()
    stream.close()
    thread.join(5)
    assert not thread.is_alive()
    assert got == [1]


def test_close_leaves_no_thread_and_may_be_repeated() -> None:
    source = Scripted([grey(1), grey(2), grey(1)])
    for mode in ("latest", "every"):
        stream = make([source], mode)
        next(stream)
        assert len(capture_threads()) == 1
        stream.close()
        assert capture_threads() == []
        stream.close()
    assert source.closed == 2


def test_a_stream_that_was_never_read_starts_nothing() -> None:
    plug = Plug([Scripted([grey(1)])])
    stream = Stream(no_faces, Capture(plug))
    stream.close()
    assert list(stream) == []
    assert plug.opened == []


def test_a_forgotten_stream_ends_with_its_last_reference() -> None:
    source = Scripted([grey(1), grey(2), grey(1)])
    for _ in make([source], "every"):
        break
    wait_until(lambda: source.closed == 1)
