"""Mode "throughput": several pictures at the same time on one loaded model."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDoneError

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.errors import InferenceError, InvalidOptionError
from edgeface.runtimes.base import Outputs, Runtime

BACKENDS = ("openvino", "onnxruntime", "tflite")


class Meeting:
    """A runtime that waits in ``infer`` until so many callers are in it."""

    def __init__(self, runtime: Runtime, callers: int) -> None:
        self._runtime = runtime
        self._barrier = threading.Barrier(callers)

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        self._barrier.wait(30)
        return self._runtime.infer(frames)

    def close(self) -> None:
        self._runtime.close()


@pytest.fixture
def pictures(astronaut: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """One face each, of another size and place each."""
    small = [cv2.resize(astronaut, (side, side)) for side in (160, 192, 224, 256)]
    return [np.asarray(np.roll(each, 16, axis=1), np.uint8) for each in small]


@pytest.mark.parametrize("backend", BACKENDS)
def test_callers_share_a_model_at_the_same_time(
    backend: str, pictures: list[NDArray[np.uint8]]
) -> None:
    with Detector(backend, input_size=(256, 256), threads=1) as alone:
        expected = [alone(picture) for picture in pictures]
    assert [len(faces) for faces in expected] == [1] * 4
    with Detector(backend, input_size=(256, 256), threads=2, mode="throughput") as detector:
        told = detector.explain()
        assert (told.threads, told.mode) == (2, "throughput")
        assert "2, mode throughput" in str(told)
        assert detector._pipeline is not None
        detector._pipeline.runtime = Meeting(detector._pipeline.runtime, 2)  # type: ignore[assignment]
        with ThreadPoolExecutor(4) as callers:
            for _ in range(3):
                found = list(callers.map(detector, pictures))
                for faces, known in zip(found, expected, strict=True):
                    np.testing.assert_allclose(faces.boxes, known.boxes, atol=0.5)
                    np.testing.assert_allclose(faces.scores, known.scores, atol=0.01)


def test_a_lane_per_thread_and_not_more(pictures: list[NDArray[np.uint8]]) -> None:
    with Detector("onnxruntime", threads=2, mode="throughput") as detector:
        assert detector._pipeline is not None
        infer, inside, most = detector._pipeline.runtime.infer, [0], [0]
        lock = threading.Lock()

        def counted(frames: NDArray[np.uint8]) -> Outputs:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            try:
                return infer(frames)
            finally:
                with lock:
                    inside[0] -= 1

        detector._pipeline.runtime.infer = counted  # type: ignore[method-assign]
        with ThreadPoolExecutor(6) as callers:
            list(callers.map(detector, pictures * 6))
        assert most[0] <= 2


def test_close_waits_for_pictures_that_are_looked_at(pictures: list[NDArray[np.uint8]]) -> None:
    detector = Detector("onnxruntime", threads=2, mode="throughput")
    entered, go_on = threading.Event(), threading.Event()
    assert detector._pipeline is not None
    infer = detector._pipeline.runtime.infer

    def slow(frames: NDArray[np.uint8]) -> Outputs:
        entered.set()
        assert go_on.wait(30)
        return infer(frames)

    detector._pipeline.runtime.infer = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as callers:
        found = callers.submit(detector, pictures[0])
        assert entered.wait(30)
        closing = callers.submit(detector.close)
        with pytest.raises(NotDoneError):
            closing.result(0.05)
        go_on.set()
        assert len(found.result(30)) == 1
        closing.result(30)
    with pytest.raises(InferenceError, match="closed"):
        detector(pictures[0])


def test_several_callers_fall_back_together(pictures: list[NDArray[np.uint8]]) -> None:
    with Detector(threads=2, mode="throughput", input_size=(256, 256)) as detector:
        first = detector.explain().backend
        if first == "onnxruntime":
            pytest.skip("no second backend is installed")
        assert detector._pipeline is not None
        both = threading.Barrier(2)

        def fail(frames: NDArray[np.uint8]) -> Outputs:
            both.wait(30)
            raise InferenceError("expected a device, got: it was lost")

        detector._pipeline.runtime.infer = fail  # type: ignore[method-assign]
        with ThreadPoolExecutor(2) as callers, pytest.warns(UserWarning, match="lost") as told:
            found = list(callers.map(detector, pictures[:2]))
        assert [len(faces) for faces in found] == [1, 1]
        assert len(told) == 1
        assert detector.explain().backend != first
        assert detector.faults[InferenceError] == 2


def test_wrong_mode() -> None:
    with pytest.raises(InvalidOptionError, match="'latency' or 'throughput', got 'fast'"):
        Detector(mode="fast")
