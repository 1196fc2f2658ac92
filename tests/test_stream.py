"""Streams over scripted sources, real files, and servers on this machine."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces, capture
from edgeface.capture import QUEUE, Capture, Watchdog
from edgeface.errors import InvalidImageError, InvalidOptionError, StreamError
from edgeface.stream import Stream, open_stream
from edgeface.video import Frame

FAST = Watchdog(timeout=0.1, open_timeout=0.3, freeze_timeout=0.1, retries=2)


def grey(value: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def no_faces(image: NDArray[np.uint8]) -> Faces:
    return Faces.empty()


def level(result: Any) -> int:
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
            return None
        if step is None:
            return None
        return Frame(step, None)

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
    monkeypatch.setattr(capture, "GRACE", 0.05)


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


def write_clip(path: Path, values: range, codec: str = "MJPG", fps: float = 20) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    for value in values:
        writer.write(grey(value))
    writer.release()
    return path


# Order, drops and back-pressure


def test_every_frame_in_order_and_the_source_waits() -> None:
    produced = 0

    def pictures() -> Iterator[NDArray[np.uint8]]:
        nonlocal produced
        for produced in range(1, 41):
            yield grey(produced)

    with open_stream(no_faces, pictures(), "every") as stream:
        for number, result in enumerate(stream):
            assert level(result) == number + 1
            assert (result.index, result.dropped) == (number, 0)
            # Those in the queue, the one in the thread's hand, and the next that it may pull.
            assert produced <= number + 1 + QUEUE + 2
        assert stream.stats.frames == 40


def test_latest_skips_to_the_newest_and_counts_the_dropped() -> None:
    stalled, resume = threading.Event(), threading.Event()

    def pictures() -> Iterator[NDArray[np.uint8]]:
        yield from (grey(value) for value in range(5))
        stalled.set()
        resume.wait(10)
        yield grey(100)

    with open_stream(no_faces, pictures(), "latest") as stream:
        first = next(stream)
        assert stalled.wait(10)
        results = [] if level(first) == 4 else [next(stream)]
        resume.set()
        results += list(stream)
    assert [level(result) for result in results][-1] == 100
    assert stream.stats.dropped == 6 - stream.stats.frames
    assert results[-1].index == 5
    assert results[-1].dropped == stream.stats.dropped
    assert stream.stats.dropped >= 3


def test_stats_and_latency() -> None:
    def slow(image: NDArray[np.uint8]) -> Faces:
        time.sleep(0.02)
        return Faces.empty()

    with open_stream(slow, [grey(0)] * 8, "every") as stream:
        assert stream.stats.fps == 0
        results = list(stream)
    stats = stream.stats
    assert 10 < stats.fps <= 50
    assert 20 <= stats.latency_p50_ms <= stats.latency_p95_ms
    assert all(result.latency_ms >= 20 for result in results)
    assert f"8 frames, 0 dropped, 0 reconnects, {stats.fps:.1f} fps" in str(stats)


# Recordings


def test_a_file_as_fast_as_it_goes_or_at_its_own_pace(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", range(0, 240, 20))
    started = time.monotonic()
    with open_stream(no_faces, clip, "every") as stream:
        timestamps = [result.timestamp for result in stream]
    assert time.monotonic() - started < 0.5
    assert timestamps == pytest.approx(np.arange(12) * 0.05)

    with open_stream(no_faces, str(clip), "latest") as stream:
        results = list(stream)
    assert results[-1].captured - results[0].captured == pytest.approx(0.55, abs=0.2)
    assert level(results[-1]) == pytest.approx(220, abs=4)
    assert len(results) + stream.stats.dropped == 12

    with open_stream(no_faces, clip, "every", realtime=True) as stream:
        captured = [result.captured for result in stream]
    assert captured[-1] - captured[0] >= 0.5


def test_timestamps_of_variable_frame_rate(data: Path) -> None:
    with open_stream(no_faces, data / "video" / "classroom.gif", "every") as stream:
        timestamps = [result.timestamp for result in stream]
    assert len(timestamps) == 45
    assert timestamps[:4] == pytest.approx([0, 0.07, 0.13, 0.2])


def test_damage_in_the_middle_leaves_a_gap(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", range(0, 240, 6), "mp4v")
    content = bytearray(clip.read_bytes())
    middle = slice(len(content) * 4 // 10, len(content) // 2)
    content[middle] = bytes(len(content[middle]))
    clip.write_bytes(content)
    with open_stream(no_faces, clip, "every") as stream:
        timestamps = [result.timestamp for result in stream]
    assert 20 <= len(timestamps) < 40
    assert timestamps == sorted(set(timestamps))
    assert timestamps[-1] == pytest.approx(39 * 0.05)


def test_files_that_are_no_video(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with (
        open_stream(no_faces, empty, "every") as stream,
        pytest.raises(InvalidImageError, match=r"got .*empty\.mp4 of 0 bytes"),
    ):
        next(stream)
    assert list(stream) == []
    with pytest.raises(InvalidImageError, match="does not exist"):
        open_stream(no_faces, tmp_path / "missing.mp4")


# Iterables


def test_pictures_of_every_size_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), grey(9))
    sources = [grey(1), grey(2, 96, 32), path, np.full((10, 12), 4, np.uint8)]
    with open_stream(no_faces, sources, "every") as stream:
        results = list(stream)
    shapes = [result.frame.shape for result in results]
    assert shapes == [(48, 64, 3), (32, 96, 3), (48, 64, 3), (10, 12, 3)]
    times = [result.timestamp for result in results]
    assert times[0] == 0
    assert times == sorted(times)


def test_color_of_arrays() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    with open_stream(no_faces, [red], color="rgb") as stream:
        assert next(stream).frame[0, 0].tolist() == [0, 0, 255]


def test_an_array_may_be_reused_by_its_owner() -> None:
    def pictures() -> Iterator[NDArray[np.uint8]]:
        image = grey(0)
        for value in range(4):
            image[:] = value
            yield image

    with open_stream(no_faces, pictures(), "every") as stream:
        assert [level(result) for result in stream] == [0, 1, 2, 3]


def test_errors_of_an_iterable_arrive_after_its_frames() -> None:
    def broken() -> Iterator[NDArray[np.uint8]]:
        yield grey(1)
        raise KeyError("mine")

    with open_stream(no_faces, broken(), "every") as stream:
        assert level(next(stream)) == 1
        with pytest.raises(KeyError, match="mine"):
            next(stream)
        assert list(stream) == []
    with (
        open_stream(no_faces, [np.zeros((4, 4), np.float32)]) as stream,
        pytest.raises(InvalidImageError, match="float32"),
    ):
        next(stream)


def test_an_error_of_the_detector_leaves_the_stream_usable() -> None:
    def detect(image: NDArray[np.uint8]) -> Faces:
        if image[0, 0, 0] == 1:
            raise RuntimeError("detector")
        return Faces.empty()

    with open_stream(detect, [grey(1), grey(2)], "every") as stream:
        with pytest.raises(RuntimeError, match="detector"):
            next(stream)
        assert level(next(stream)) == 2


# The watchdog


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


def test_a_frozen_camera_is_reopened() -> None:
    frozen, thawed = Scripted([grey(1), grey(2)]), Scripted([grey(3), grey(4)])
    with make([frozen, thawed]) as stream:
        for result in stream:
            if level(result) >= 3:
                break
            result.frame[:] = 0  # drawing on a frame hides nothing from the watchdog
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
    with make([stuck, fresh]) as stream:
        assert [level(next(stream)) for _ in range(3)] == [1, 2, 3]
        assert stream.stats.reconnects == 1
        assert stuck.closed == 0
        hang.set()
        wait_until(lambda: stuck.closed == 1)
        assert 77 not in [level(next(stream)) for _ in range(10)]
        assert len(capture_threads()) == 1


def test_back_pressure_is_not_taken_for_a_loss() -> None:
    changing = Scripted([grey(value) for value in range(1, 200)])
    with make([changing]) as stream:
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


# Closing


def test_close_while_the_source_hangs() -> None:
    hang = threading.Event()
    source = Scripted([grey(1), hang])
    stream = make([source], watchdog=Watchdog())
    next(stream)
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


# async


def test_async_for() -> None:
    async def main() -> list[int]:
        async with open_stream(no_faces, [grey(value) for value in range(5)], "every") as stream:
            return [level(result) async for result in stream]

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_the_event_loop_goes_on_while_a_stream_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeface.stream.ASYNC_WAIT", 0.02)
    gate = threading.Event()

    def pictures() -> Iterator[NDArray[np.uint8]]:
        yield grey(1)
        gate.wait(10)
        yield grey(2)

    async def main() -> list[int]:
        async with open_stream(no_faces, pictures(), "every") as stream:
            first = await anext(aiter(stream))
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(stream.__anext__(), 0.05)
            gate.set()
            return [level(first), *[level(result) async for result in stream]]

    assert asyncio.run(main()) == [1, 2]


def test_errors_arrive_in_async_for() -> None:
    async def main() -> None:
        async for _ in make([StreamError("no such camera")]):
            pass

    with pytest.raises(StreamError, match="no such camera"):
        asyncio.run(main())


# Tracking


def face(image: NDArray[np.uint8]) -> Faces:
    x = float(image[0, 0, 0])
    return Faces(np.array([[x, 5, x + 20, 25]], np.float32), np.array([0.9], np.float32))


def test_track() -> None:
    frames = [grey(value) for value in range(0, 20, 2)]
    with open_stream(face, frames, "every", track=True) as stream:
        results = list(stream)
    assert {int(i) for result in results for i in result.faces.track_ids} == {1}
    assert len(results[-1].faces) == 1
    with open_stream(face, frames, "every", track=False) as stream:
        assert next(stream).faces.track_ids is None


def test_a_tracker_stands_in_for_the_detector(tmp_path: Path) -> None:
    from edgeface.tracking import Tracker

    clip = write_clip(tmp_path / "clip.avi", range(0, 60, 4))
    calls: list[float] = []

    def detect(image: NDArray[np.uint8]) -> Faces:
        calls.append(float(image[0, 0, 0]))
        return face(image)

    with open_stream(detect, clip, "every", track=Tracker(every=3, min_hits=1)) as stream:
        results = list(stream)
    assert len(results) == 15
    assert len(calls) == 5
    assert [result.faces.track_ids.tolist() for result in results] == [[1]] * 15
    assert results[-1].faces.boxes[0, 0] > results[-3].faces.boxes[0, 0]


# Options


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (0, {"mode": "newest"}, "mode 'latest' or 'every', got 'newest'"),
        ([], {"color": "grb"}, "color 'bgr' or 'rgb', got 'grb'"),
        (None, {}, "an iterable of pictures, got NoneType"),
        (True, {}, "an iterable of pictures, got bool"),
        (np.zeros((4, 4, 3), np.uint8), {}, "got ndarray; for one picture, call the detector"),
    ],
)
def test_wrong_options(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        open_stream(no_faces, source, **options)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"open_timeout": -1}, {"freeze_timeout": 0}, {"retries": -1}]
)
def test_wrong_limits(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        Watchdog(**options)


# The real thing


class MjpegServer:
    """Serves motion JPEG; the n-th connection sends the n-th script of JPEG bytes, then ends."""

    def __init__(self, scripts: list[list[bytes]]) -> None:
        self.connections = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:  # noqa: N802
                number = min(outer.connections, len(scripts) - 1)
                outer.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for jpeg in scripts[number]:
                    head = b"--frame\r\nContent-Type: image/jpeg\r\n"
                    length = b"Content-Length: %d\r\n\r\n" % len(jpeg)
                    try:
                        self.wfile.write(head + length + jpeg + b"\r\n")
                    except OSError:
                        return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/camera.mjpg"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def jpeg(value: int) -> bytes:
    return bytes(cv2.imencode(".jpg", grey(value))[1])


def test_a_network_camera_that_breaks_off_and_comes_back() -> None:
    first = [jpeg(value) for value in range(10, 100, 10)]
    first[4] = first[4][: len(first[4]) // 2]
    first[5] = b"noise"
    second = [jpeg(value) for value in range(150, 240, 10)]
    server = MjpegServer([first, second])
    levels: list[int] = []
    watchdog = Watchdog(timeout=0.3, open_timeout=5, retries=5)
    try:
        with open_stream(no_faces, server.url, "every", watchdog=watchdog) as stream:
            for result in stream:
                levels.append(level(result))
                if levels[-1] >= 200:
                    break
            assert stream.stats.reconnects == 1
    finally:
        server.close()
    assert levels == pytest.approx([10, 20, 30, 40, 70, 80, 90, 150, 160, 170, 180, 190, 200], abs=2)


def test_a_recording_behind_a_url_ends(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", range(0, 120, 20))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{clip.name}"
        with open_stream(no_faces, url, "every") as stream:
            results = list(stream)
        server.shutdown()
    assert [round(result.timestamp, 3) for result in results] == [0, 0.05, 0.1, 0.15, 0.2, 0.25]
    assert stream.stats.reconnects == 0


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/camera.mjpg"


def test_a_url_that_never_answers_is_an_error(silence: str) -> None:
    started = time.monotonic()
    with (
        open_stream(no_faces, silence, watchdog=Watchdog(open_timeout=0.5)) as stream,
        pytest.raises(StreamError, match=r"expected to open http.*camera\.mjpg"),
    ):
        next(stream)
    assert time.monotonic() - started < 3


def test_close_while_opencv_waits_for_a_silent_server(silence: str) -> None:
    stream = open_stream(no_faces, silence, watchdog=Watchdog(open_timeout=2))
    loop = threading.Thread(target=lambda: list(stream))
    loop.start()
    wait_until(lambda: bool(capture_threads()))
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 1
    loop.join(1)
    assert not loop.is_alive()


def test_no_such_camera() -> None:
    with open_stream(no_faces, 97) as stream, pytest.raises(StreamError, match="the camera 97"):
        next(stream)


def test_the_detector_streams(data: Path) -> None:
    with Detector("onnxruntime", threads=1, input_size=320) as detector:
        video = data / "video" / "head-pose-face-detection-female-and-male.gif"
        with detector.stream(video, "every") as stream:
            results = list(stream)
        with detector.stream([results[0].frame]) as stream:
            again = next(stream).faces
    assert len(results) == 56
    assert sum(len(result.faces) > 0 for result in results) > 28
    assert np.array_equal(again.boxes, results[0].faces.boxes)
