"""Every kind of input: the right faces or a typed error, and the caller's array unchanged."""

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
from edgeface.errors import InvalidImageError

PORTRAIT = np.asarray(cv2.imread(str(Path(__file__).parents[2] / "docs" / "astronaut.jpg")))


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with Detector("onnxruntime", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(detector: Detector) -> Faces:
    faces = detector(PORTRAIT)
    assert len(faces) == 1
    return faces


def backwards(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1]


def read_only(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = image.copy()
    image.setflags(write=False)
    return image


def strided(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    wide = np.zeros((image.shape[0], 2 * image.shape[1], 3), np.uint8)
    wide[:, ::2] = image
    return wide[:, ::2]


GOOD = {
    "contiguous": lambda image: image.copy(),
    "negative strides": backwards,
    "channels backwards": lambda image: np.ascontiguousarray(image[..., ::-1])[..., ::-1],
    "every other column of a wider array": strided,
    "read-only": read_only,
    "Fortran order": np.asfortranarray,
    "RGBA": lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2BGRA),
    "a subclass": lambda image: image.view(Sub),
}


class Sub(np.ndarray):
    """A subclass, as some camera libraries return."""


@pytest.mark.parametrize("kind", GOOD)
def test_the_same_picture_in_another_layout(kind: str, detector: Detector, expected: Faces) -> None:
    image = GOOD[kind](PORTRAIT)
    before = np.array(image)
    faces = detector(image)
    np.testing.assert_allclose(faces.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(faces.landmarks, expected.landmarks, atol=1e-3)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("shape", [(512, 512), (512, 512, 1)])
def test_grey(shape: tuple[int, ...], detector: Detector, expected: Faces) -> None:
    grey = cv2.cvtColor(PORTRAIT, cv2.COLOR_BGR2GRAY).reshape(PORTRAIT.shape[:2])
    [face] = detector(grey.reshape(*grey.shape, 1) if len(shape) == 3 else grey)
    np.testing.assert_allclose(face.box, expected[0].box, atol=30)


@pytest.mark.parametrize(
    "image",
    [
        None,
        3.5,
        [],
        {},
        object(),
        np.zeros((0, 7, 3), np.uint8),
        np.zeros((7, 0, 3), np.uint8),
        np.zeros((7, 7, 0), np.uint8),
        np.zeros((7, 7, 2), np.uint8),
        np.zeros((7,), np.uint8),
        np.zeros((), np.uint8),
        np.zeros((2, 7, 7, 3), np.uint8),
        np.zeros((3, 480, 640), np.uint8),
        np.zeros((7, 7, 3), np.float32),
        np.full((7, 7, 3), np.nan, np.float64),
        np.full((7, 7, 3), np.inf, np.float16),
        np.zeros((7, 7, 3), np.uint16),
        np.zeros((7, 7, 3), np.int8),
        np.zeros((7, 7, 3), bool),
        np.zeros((7, 7, 3), complex),
        np.empty((7, 7, 3), object),
        np.array("picture"),
        np.zeros((7, 7), [("b", np.uint8), ("g", np.uint8)]),
        np.ma.masked_array(np.zeros((7, 7, 3), np.float32)),
        b"",
        b"\0" * 100,
        "",
        "\0",
        "no such file.jpg",
    ],
    ids=lambda image: f"{type(image).__name__} {getattr(image, 'shape', '')}",
)
def test_what_is_no_picture(image: Any, detector: Detector, expected: Faces) -> None:
    if isinstance(image, list):
        assert detector(image) == []
        return
    with pytest.raises(InvalidImageError):
        detector(image)
    np.testing.assert_array_equal(detector(PORTRAIT).boxes, expected.boxes)


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 2), (1, 10_000), (10_000, 1), (3, 5000), (31, 33), (2160, 3840)],
)
@pytest.mark.parametrize("input_size", [640, None])
def test_extreme_shapes(shape: tuple[int, int], input_size: int | None) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    if input_size is None and min(shape) > 1000:
        pytest.skip("seconds of pure arithmetic")
    with Detector("onnxruntime", input_size=input_size, threads=1) as detector:
        faces = detector(image)
    assert np.isfinite(faces.boxes).all()
    assert (faces.boxes >= 0).all()
    assert (faces.boxes <= [shape[1], shape[0]] * 2).all()


def test_fifty_megapixels(detector: Detector, expected: Faces) -> None:
    image = cv2.resize(PORTRAIT, (7072, 7072))
    [face] = detector(image)
    scale = 7072 / PORTRAIT.shape[0]
    height = expected[0].box[3] - expected[0].box[1]
    np.testing.assert_allclose(face.box / scale, expected[0].box, atol=0.1 * height)


def test_an_array_that_another_thread_writes_to(detector: Detector) -> None:
    """Torn frames give some faces or none, never a crash."""
    image = PORTRAIT.copy()
    stop = threading.Event()

    def scribble() -> None:
        rng = np.random.default_rng(0)
        while not stop.is_set():
            image[int(rng.integers(len(image)))] = rng.integers(0, 256, 3)

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        for _ in range(20):
            assert np.isfinite(detector(image).boxes).all()
    finally:
        stop.set()
        writer.join()
