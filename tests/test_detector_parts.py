"""Which part of a picture the detector looks at, how closely, and which faces it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces
from edgeface.errors import InvalidOptionError
from edgeface.preprocess import EASY_FACE, sufficient_size

Image = NDArray[np.uint8]


@contextmanager
def watched(**options: object) -> Iterator[tuple[Detector, list[tuple[int, int]]]]:
    """A detector, and the (width, height) of the frames that its network got."""
    with Detector("onnxruntime", **options) as detector:
        sizes, infer = [], detector._pipeline.runtime.infer

        def note(frame: Image) -> object:
            sizes.append((frame.shape[2], frame.shape[1]))
            return infer(frame)

        detector._pipeline.runtime.infer = note
        yield detector, sizes


def assert_same(found: Faces, expected: Faces, tolerance: float = 10) -> None:
    assert found.boxes == pytest.approx(expected.boxes, abs=tolerance)
    assert found.landmarks == pytest.approx(expected.landmarks, abs=tolerance)


@pytest.fixture(scope="module")
def expected(astronaut: Image) -> Faces:
    with Detector("onnxruntime") as detector:
        faces = detector(astronaut)
    assert len(faces) == 1
    return faces


def test_region_of_interest(astronaut: Image, expected: Faces) -> None:
    with watched(roi=(130, 20, 192, 224)) as (detector, sizes):
        assert_same(detector(astronaut), expected)
        assert sizes == [(192, 224)]
    with watched(roi=(0, 300, 512, 212)) as (detector, _):
        assert len(detector(astronaut)) == 0


def test_region_outside_the_picture(astronaut: Image) -> None:
    with watched(roi=(512, 0, 10, 10)) as (detector, sizes):
        with pytest.raises(InvalidOptionError, match="512x512"):
            detector(astronaut)
        assert not sizes


def test_smallest_face(astronaut: Image, expected: Faces) -> None:
    side = float((expected.boxes[0, 2:] - expected.boxes[0, :2]).min())
    with watched(min_face=round(0.8 * side)) as (detector, sizes):
        assert_same(detector(astronaut), expected, tolerance=12)
        assert max(sizes[0]) < 320
    with watched(min_face=round(1.3 * side)) as (detector, _):
        assert len(detector(astronaut)) == 0


@pytest.mark.parametrize(
    ("input_size", "min_face", "size"),
    [
        (640, None, 640),
        (None, None, None),
        (640, 1000, 1920 * EASY_FACE / 1000),
        (None, 100, 1920 * EASY_FACE / 100),
        (640, 10, 640),
        (None, 10, 1920),
        ((640, 480), 1000, (640, 480)),
    ],
)
def test_no_larger_than_needed(input_size: object, min_face: int | None, size: object) -> None:
    found = sufficient_size(1920, 1080, input_size, min_face)
    assert found == (
        size if size is None or isinstance(size, tuple) else pytest.approx(size, abs=1)
    )


def test_tiles(astronaut: Image) -> None:
    """Faces of 14 pixels, spread over a picture of 2048 x 1024, one of them on a tile's edge."""
    small = cv2.resize(astronaut, None, fx=0.15, fy=0.15, interpolation=cv2.INTER_AREA)
    image = np.full((1024, 2048, 3), 200, np.uint8)
    corners = [(10, 10), (450, 300), (580, 900), (1500, 470), (1960, 940)]
    for x, y in corners:
        image[y : y + 77, x : x + 77] = small
    with watched() as (detector, sizes):
        assert len(detector(image)) == 0
        assert sizes == [(640, 320)]
    with watched(tile=True) as (detector, sizes):
        found = detector(image)
        assert sizes == [(640, 320), *[(640, 640)] * 8]
        assert set(detector.profile) == {"read", "preprocess", "infer", "postprocess"}
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    wanted = np.array(corners) + np.array([224, 116]) * 0.15
    nearest = np.abs(centres[:, None] - wanted).max(2)
    assert len(found) == len(corners)
    assert nearest.min(1).max() < 6
    assert sorted(nearest.argmin(1)) == list(range(len(corners)))

    with watched(tile=True, roi=(400, 250, 640, 640), max_faces=1) as (detector, sizes):
        found = detector(image)
        assert sizes == [(640, 640)]
        assert len(found) == 1
        assert found.boxes[0, 0] == pytest.approx(450 + 178 * 0.15, abs=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_face": 0}, "min_face"),
        ({"min_face": 9.5}, "min_face"),
        ({"roi": (0, 0, 0, 0)}, "roi"),
        ({"tile": True, "input_size": None}, "input_size"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        Detector("onnxruntime", **options)
