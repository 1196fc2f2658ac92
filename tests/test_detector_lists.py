"""Lists of pictures: computed together where the backend gains by it, and as right as alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces
from edgeface.batching import by_shape, full_batches
from edgeface.errors import InferenceError, InvalidImageError, InvalidOptionError, NumericalError
from edgeface.runtimes.base import BACKENDS, Outputs, Runtime

SIDES = [(160, 160), (160, 160), (128, 160), (160, 160), (128, 160), (160, 160), (160, 160)]


class Watched:
    """A runtime that notes the frames that it gets, and may be told to fail or to give NaN."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.shapes: list[tuple[int, ...]] = []
        self.fails = self.sick = False

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        self.shapes.append(frames.shape)
        if self.fails:
            raise InferenceError("expected a device, got: it was lost")
        outputs = self._runtime.infer(frames)
        if self.sick and len(frames) > 1:
            outputs = {name: value.copy() for name, value in outputs.items()}
            outputs["logit_8"][1] = np.nan
        return outputs

    def describe(self) -> Any:
        return self._runtime.describe()

    def close(self) -> None:
        self._runtime.close()


def watch(detector: Detector) -> Watched:
    assert detector._pipeline is not None
    watched = Watched(detector._pipeline.runtime)
    detector._pipeline.runtime = watched
    return watched


@pytest.fixture(scope="module")
def pictures(astronaut: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """A face each, of two sizes, at another place each."""
    face = astronaut[:256, 96:352]
    return [
        np.asarray(np.roll(cv2.resize(face, (width, height)), 6 * number, axis=1), np.uint8)
        for number, (height, width) in enumerate(SIDES)
    ]


@pytest.fixture
def batching() -> Iterator[Detector]:
    """A detector that computes four at once."""
    with Detector("openvino", precision="int8", input_size=160, threads=1) as detector:
        assert detector.explain().batch == 4
        yield detector


def assert_same(found: list[Faces], expected: list[Faces]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other) == 1
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
        np.testing.assert_allclose(one.scores, other.scores, atol=0.002)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=0.05)


def test_arrays_of_one_shape_come_beside_each_other() -> None:
    wide, high = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)
    images = [wide, high, "a.jpg", wide, b"", high, wide]
    assert by_shape(images, 2) == [
        [0, 3],
        [1, 5],
        [2, 4],
        [6],
    ]
    assert by_shape([wide, high, wide], 1) == [[0], [1], [2]]
    assert by_shape([], 4) == []


def test_full_batches_of_one_size_and_the_rest_alone() -> None:
    assert full_batches("abaaabb", 2) == [[0, 2], [3, 4], [1, 5], [6]]
    assert full_batches("abc", 2) == [[0], [1], [2]]
    assert full_batches("aaaa", 4) == [[0, 1, 2, 3]]


def test_a_batch_gives_what_one_by_one_gives(
    batching: Detector, pictures: list[NDArray[np.uint8]]
) -> None:
    expected = [batching(picture) for picture in pictures]
    watched = watch(batching)
    assert_same(batching(pictures), expected)
    assert watched.shapes == [(4, 160, 160, 3), *[(1, 128, 160, 3)] * 2, (1, 160, 160, 3)]
    assert list(batching.profile) == ["read", "preprocess", "infer", "postprocess"]
    assert all(batching.profile.values())


def test_pictures_that_are_shrunk_or_padded_share_a_batch(batching: Detector) -> None:
    watched = watch(batching)
    big = np.full((320, 320, 3), 128, np.uint8)
    odd = np.full((150, 150, 3), 128, np.uint8)
    assert [len(faces) for faces in batching([odd, odd, big, big])] == [0] * 4
    assert watched.shapes == [(4, 160, 160, 3)]


def test_a_long_list_is_computed_a_few_at_a_time(
    batching: Detector, pictures: list[NDArray[np.uint8]]
) -> None:
    watched = watch(batching)
    found = batching((pictures[0],) * 9)
    assert watched.shapes == [(4, 160, 160, 3)] * 2 + [(1, 160, 160, 3)]
    assert_same(found, [found[0]] * 9)


def test_the_callers_arrays_are_never_written_to(
    batching: Detector, pictures: list[NDArray[np.uint8]]
) -> None:
    copies = [picture.copy() for picture in pictures]
    batching(pictures)
    np.testing.assert_equal(pictures, copies)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "tflite"])
def test_lists_keep_their_order(
    backend: str, mode: str, pictures: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), pictures[3])
    mixed = [pictures[0], str(path), pictures[2], pictures[1], path.read_bytes(), *pictures[4:]]
    with Detector(backend, input_size=160, threads=2, mode=mode) as detector:
        expected = [detector(picture) for picture in mixed]
        for _ in range(3):
            assert_same(detector(mixed), expected)
        assert detector([]) == []


def test_only_backends_that_gain_are_given_batches() -> None:
    declared = {name: dict(backend.batches) for name, backend in BACKENDS.items()}
    assert declared == {
        "tensorrt": {},
        "tensorrt-rtx": {},
        "openvino": {"int8": 4},
        "tflite": {},
        "onnxruntime": {},
    }
    with Detector("onnxruntime", threads=1) as detector:
        watched = watch(detector)
        detector([np.zeros((64, 64, 3), np.uint8)] * 5)
        assert watched.shapes == [(1, 64, 64, 3)] * 5


def test_tiles_of_a_picture_share_a_batch(astronaut: NDArray[np.uint8]) -> None:
    large = np.asarray(cv2.resize(astronaut, (600, 600)), np.uint8)
    with Detector(
        "openvino", precision="int8", input_size=(320, 320), tile=True, threads=1
    ) as detector:
        assert detector._pipeline is not None
        detector._pipeline.batch = 1
        expected = detector(large)
        detector._pipeline.batch = 4
        watched = watch(detector)
        found = detector(large)
    assert watched.shapes == [(4, 320, 320, 3)] * 2 + [(1, 320, 320, 3)] * 2
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.5)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.01)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_broken_picture_is_named_and_the_detector_goes_on(
    mode: str, pictures: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with Detector("openvino", input_size=160, threads=2, mode=mode) as detector:
        for wrong in (tmp_path / "bad.jpg", None, np.zeros((2, 2)), "missing.png"):
            with pytest.raises(InvalidImageError, match=r"^picture 5 of the list: expected"):
                detector([*pictures[:5], wrong, pictures[5]])
        assert [len(faces) for faces in detector(pictures)] == [1] * len(pictures)
    with (
        Detector("onnxruntime", roi=(100, 0, 50, 50), threads=2, mode=mode) as detector,
        pytest.raises(InvalidOptionError, match=r"^picture 1 of the list: expected a roi inside"),
    ):
        detector([pictures[0], pictures[0][:, :90]])


def test_a_picture_on_a_gpu_is_refused_in_a_batch_as_alone(batching: Detector) -> None:
    class OnGpu:
        __cuda_array_interface__ = {  # noqa: RUF012
            "shape": (160, 160, 3), "typestr": "|u1", "data": (4096, True), "version": 3,
        }  # fmt: skip

    with pytest.raises(InvalidImageError, match="got one in that of a GPU"):
        batching([OnGpu() for _ in range(4)])  # type: ignore[misc]


def test_a_batch_that_fails_goes_to_the_next_backend(pictures: list[NDArray[np.uint8]]) -> None:
    with Detector(input_size=160, threads=1) as detector:
        if detector.explain().backend != "openvino":
            pytest.skip("OpenVINO is not what this machine prefers")
        watch(detector).fails = True
        with pytest.warns(UserWarning, match="it was lost") as told:
            found = detector(pictures)
        assert [len(faces) for faces in found] == [1] * len(pictures)
        assert len(told) == detector.faults[InferenceError] == 1
        assert detector.explain().batch == 1


def test_an_unsound_picture_of_a_batch_is_counted_alone(
    batching: Detector, pictures: list[NDArray[np.uint8]]
) -> None:
    watch(batching).sick = True
    with pytest.warns(NumericalError) as told:
        batching([pictures[0]] * 8)
    assert batching.faults[NumericalError] == 2
    assert len(told) == 1


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_closed_detector_says_so_and_leaves_no_thread(
    mode: str, pictures: list[NDArray[np.uint8]]
) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    with Detector("onnxruntime", input_size=160, threads=2, mode=mode) as detector:
        detector(pictures)
    assert {thread.ident for thread in threading.enumerate()} <= before
    with pytest.raises(InferenceError, match="closed"):
        detector(pictures)
    assert {thread.ident for thread in threading.enumerate()} <= before


def test_a_list_that_is_closed_half_way_ends_with_the_error(
    pictures: list[NDArray[np.uint8]],
) -> None:
    detector = Detector("onnxruntime", input_size=160, threads=2, mode="throughput")
    assert detector._pipeline is not None
    infer, entered = detector._pipeline.runtime.infer, threading.Event()

    def closes(frames: NDArray[np.uint8]) -> Outputs:
        if not entered.is_set():
            entered.set()
            closing.start()
        return infer(frames)

    closing = threading.Thread(target=detector.close)
    detector._pipeline.runtime.infer = closes  # type: ignore[method-assign]
    with pytest.raises(InferenceError, match="closed"):
        detector(pictures * 50)
    closing.join(30)
    assert not closing.is_alive()
