"""Several cameras on one detector, here with sources and detectors that a test controls."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces
from edgeface.cameras import CameraResult, Cameras, open_cameras
from edgeface.errors import InferenceError, InvalidOptionError, StreamError
from edgeface.tracking import Tracker

Image = NDArray[np.uint8]


def grey(value: int) -> Image:
    return np.full((48, 64, 3), value % 256, np.uint8)


def no_faces(image: Image) -> Faces:
    return Faces.empty()


def level(result: CameraResult) -> int:
    return int(result.frame[0, 0, 0])


def endless(pause: float = 0.001) -> Iterator[Image]:
    for number in count():
        time.sleep(pause)
        yield grey(number)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"it did not happen within {seconds} s"
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    gc.collect()
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_every_frame_of_every_camera_in_the_cameras_order() -> None:
    sources = {name: [grey(first + step) for step in range(9)] for name, first in NAMED.items()}
    with open_cameras(no_faces, sources, "every", turns=2) as cameras:
        results = list(cameras)
        assert next(cameras, None) is None
    for name, first in NAMED.items():
        own = [result for result in results if result.camera == name]
        assert [level(result) for result in own] == list(range(first, first + 9))
        assert [result.index for result in own] == list(range(9))
        assert all(result.dropped == 0 for result in own)
        assert cameras.stats[name].frames == 9
    assert cameras.errors == {}


NAMED = {"door": 0, "yard": 50, "roof": 100}


def test_no_camera_crowds_out_another() -> None:
    sources = {"quick": endless(0), "brisk": endless(0.001), "calm": endless(0.005)}

    def detect(image: Image) -> Faces:
        time.sleep(0.01)
        return Faces.empty()

    with open_cameras(detect, sources) as cameras:
        seen: set[str] = set()
        while len(seen) < 3:
            seen.add(next(cameras).camera)
        told = Counter(result.camera for result in islice(cameras, 60))
    assert min(told[name] for name in sources) >= 10, told


def test_a_camera_that_waited_for_its_turn_gives_its_newest_frame() -> None:
    busy, go_on, produced = threading.Event(), threading.Event(), threading.Event()

    def detect(image: Image) -> Faces:
        if image[0, 0, 0] == 200:
            busy.set()
            assert go_on.wait(20)
        return Faces.empty()

    def waits() -> Iterator[Image]:
        assert busy.wait(20)
        yield from (grey(value) for value in range(10))
        produced.set()
        go_on.wait(20)
        time.sleep(0.1)

    with open_cameras(detect, {"first": [grey(200)], "second": waits()}) as cameras:
        results: list[CameraResult] = []
        consumer = threading.Thread(target=lambda: results.extend(cameras))
        consumer.start()
        assert produced.wait(20)
        time.sleep(0.05)
        go_on.set()
        consumer.join(20)
        assert [result.camera for result in results] == ["first", "second"]
        assert level(results[1]) == 9
        assert results[1].dropped == cameras.stats["second"].dropped == 9


def test_where_the_caller_is_slow_nothing_piles_up() -> None:
    detected = Counter[int]()

    def detect(image: Image) -> Faces:
        detected[0] += 1
        return Faces.empty()

    with open_cameras(detect, {"a": endless(), "b": endless()}) as cameras:
        first = next(cameras)
        wait_until(lambda: cameras.stats["a"].dropped > 5 and cameras.stats["b"].dropped > 5)
        # One result each waits, and the camera whose result was taken may work on its next.
        assert detected[0] <= 3
        assert first.camera in ("a", "b")


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_as_many_frames_at_the_same_time_as_there_are_turns(turns: int) -> None:
    inside, most, lock = [0], [0], threading.Lock()
    full = threading.Event()

    def detect(image: Image) -> Faces:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            if inside[0] == turns:
                full.set()
        full.wait(20)
        with lock:
            inside[0] -= 1
        return Faces.empty()

    sources = {str(number): endless() for number in range(5)}
    with open_cameras(detect, sources, turns=turns) as cameras:
        assert len(list(islice(cameras, 20))) == 20
    assert most[0] == turns


def test_a_camera_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    def breaks() -> Iterator[Image]:
        yield grey(1)
        raise OSError("the cable is cut")

    sources = {"bad": breaks(), "good": [grey(value) for value in range(20)], "no video": __file__}
    with caplog.at_level(logging.WARNING), open_cameras(no_faces, sources, "every") as cameras:
        results = Counter(result.camera for result in cameras)
    assert results == {"bad": 1, "good": 20}
    assert set(cameras.errors) == {"bad", "no video"}
    assert "cut" in str(cameras.errors["bad"])
    assert "camera 'bad' failed: " in caplog.text


def test_a_detector_that_fails_for_one_camera_only() -> None:
    def detect(image: Image) -> Faces:
        if image[0, 0, 0] == 7:
            raise InferenceError("expected a device, got: it was lost")
        return Faces.empty()

    with open_cameras(detect, {"a": [grey(7)], "b": [grey(1)] * 3}, "every") as cameras:
        assert [result.camera for result in cameras] == ["b"] * 3
    assert isinstance(cameras.errors["a"], InferenceError)


def test_where_every_camera_fails_the_loop_says_so_once() -> None:
    sources = {"a": iter(["missing.png"]), "b": __file__}
    with open_cameras(no_faces, sources) as cameras:
        with pytest.raises(StreamError, match=r"every one failed: .*missing.png") as told:
            list(cameras)
        assert "b: expected a video" in str(told.value)
        assert list(cameras) == []


def test_close_ends_a_loop_and_drops_what_waits() -> None:
    cameras = open_cameras(no_faces, {"a": endless(), "b": endless()})
    next(cameras)
    looping = threading.Thread(target=lambda: list(cameras))
    looping.start()
    cameras.close()
    looping.join(20)
    assert not looping.is_alive()
    assert list(cameras) == []
    cameras.close()


def test_close_before_the_first_frame() -> None:
    cameras = open_cameras(no_faces, {"a": endless()})
    cameras.close()
    assert list(cameras) == []


def test_close_does_not_wait_for_sources_that_hang() -> None:
    hang = threading.Event()

    def hangs() -> Iterator[Image]:
        yield grey(0)
        hang.wait(60)

    cameras = open_cameras(no_faces, {str(number): hangs() for number in range(6)})
    for _ in range(6):
        next(cameras)
    started = time.monotonic()
    cameras.close()
    # One limit for all of them, not 0.7 s each.
    assert time.monotonic() - started < 3
    hang.set()


def test_cameras_that_are_forgotten_end() -> None:
    cameras: Cameras | None = open_cameras(no_faces, {"a": endless(), "b": endless()})
    assert cameras is not None
    next(cameras)
    cameras = None


def test_a_fork_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cameras(no_faces, {"a": endless()}) as cameras:
        next(cameras)
        with monkeypatch.context() as patch:
            patch.setattr("edgeface.cameras.os.getpid", lambda: -1)
            with pytest.raises(InferenceError, match="a fork of it"):
                next(cameras)
            cameras._desk.close()
        assert next(cameras).camera == "a"


def test_async_for_and_a_cancelled_wait() -> None:
    async def main() -> Counter[str]:
        sources = {"a": [grey(0)] * 5, "b": [grey(1)] * 5}
        async with open_cameras(no_faces, sources, "every") as cameras:
            told = Counter([result.camera async for result in cameras])
        gate = threading.Event()

        def gated() -> Iterator[Image]:
            gate.wait(20)
            yield grey(3)

        async with open_cameras(no_faces, {"c": gated()}) as waiting:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext_of(waiting), 0.05)
            gate.set()
            told[(await anext_of(waiting)).camera] += 1
        return told

    assert asyncio.run(main()) == {"a": 5, "b": 5, "c": 1}


async def anext_of(cameras: Cameras) -> CameraResult:
    return await cameras.__anext__()


def test_faces_are_numbered_by_camera() -> None:
    def detect(image: Image) -> Faces:
        x = float(image[0, 0, 0])
        return Faces(
            np.array([[x, 5, x + 30, 35]], np.float32), np.array([0.9], np.float32),
            np.zeros((1, 5, 2), np.float32),
        )  # fmt: skip

    sources = {name: [grey(first + step) for step in range(8)] for name, first in NAMED.items()}
    with open_cameras(detect, sources, "every", track=True) as cameras:
        ids = {(result.camera, number) for result in cameras for number in result.faces.track_ids}
    assert ids == {(name, 1) for name in NAMED}
    sources = {name: [grey(first)] * 4 for name, first in NAMED.items()}
    with open_cameras(detect, sources, "every", track={"door": Tracker()}) as cameras:
        tracked = {result.camera: result.faces.track_ids is not None for result in cameras}
    assert tracked == {"door": True, "yard": False, "roof": False}


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ({}, {}, "cameras by name"),
        ([0, 1], {}, "cameras by name"),
        ({"a": 0}, {"mode": "newest"}, "'latest' or 'every'"),
        ({"a": 0}, {"color": "grey"}, "color"),
        ({"a": None}, {}, "a camera index"),
        ({"a": 0}, {"track": {"b": Tracker()}}, "trackers of the cameras"),
        ({"a": 0, "b": 1}, {"track": dict.fromkeys("ab", Tracker())}, "a tracker for each"),
    ],
)
def test_wrong_options(sources: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        open_cameras(no_faces, sources, **options)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_the_detector_and_its_cameras(mode: str, astronaut_clip: Path) -> None:
    with Detector("onnxruntime", input_size=160, threads=2, mode=mode) as detector:
        with detector.stream(astronaut_clip, "every") as stream:
            expected = [result.faces for result in stream]
        sources = {"one": astronaut_clip, "two": str(astronaut_clip)}
        with detector.cameras(sources, "every") as cameras:
            found: dict[str, list[Faces]] = {"one": [], "two": []}
            for result in cameras:
                found[result.camera].append(result.faces)
        for faces in found.values():
            assert len(faces) == len(expected) == 50
            for one, other in zip(faces, expected, strict=True):
                np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)


def test_a_closed_detector_is_told() -> None:
    detector = Detector("onnxruntime", threads=1)
    detector.close()
    with (
        detector.cameras({"a": [grey(0)]}) as cameras,
        pytest.raises(StreamError, match=r"every one failed: a: .*closed"),
    ):
        list(cameras)
