"""Streams over iterables and recordings: order, drops, timestamps, async, tracks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces
from edgeface.capture import QUEUE
from edgeface.errors import InvalidImageError, InvalidOptionError
from edgeface.stream import StreamResult, open_stream


def grey(value: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def no_faces(image: NDArray[np.uint8]) -> Faces:
    return Faces.empty()


def level(result: StreamResult) -> int:
    return round(float(result.frame.mean()))


def write_clip(path: Path, values: range) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
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
    assert 1 < stats.fps <= 50
    assert 20 <= stats.latency_p50_ms <= stats.latency_p95_ms
    assert all(result.latency_ms >= 20 for result in results)
    assert f"8 frames, 0 dropped, 0 reconnects, {stats.fps:.1f} fps" in str(stats)


# Recordings


def test_a_file_as_fast_as_it_goes_or_at_its_own_pace(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", range(0, 240, 20))

    def seconds(results: list[StreamResult]) -> float:
        return results[-1].captured - results[0].captured

    with open_stream(no_faces, clip, "every") as stream:
        results = list(stream)
    assert [result.timestamp for result in results] == pytest.approx(np.arange(12) * 0.1)
    assert seconds(results) < 0.8

    with open_stream(no_faces, str(clip), "latest") as stream:
        results = list(stream)
    assert level(results[-1]) == pytest.approx(220, abs=4)
    assert len(results) + stream.stats.dropped == 12
    assert seconds(results) >= (results[-1].timestamp - results[0].timestamp) * 0.9

    with open_stream(no_faces, clip, "every", realtime=True) as stream:
        assert seconds(list(stream)) >= 1


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with (
        open_stream(no_faces, text) as stream,
        pytest.raises(InvalidImageError, match=r"can decode, got .*text\.mp4 of 8 bytes"),
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
