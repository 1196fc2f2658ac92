"""Tiles cover a picture, and small faces in a large picture are found through them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces
from edgeface.errors import InvalidOptionError
from edgeface.tiling import OVERLAP, Region, check_region, merge, regions, tile_size

OPTIONS = {"nms_threshold": 0.4, "min_face": None, "max_faces": None}
LANDMARKS = np.arange(10).reshape(1, 5, 2)


@pytest.mark.parametrize("size", [(3840, 2160), (1000, 641), (641, 100), (640, 2000), (1281, 1279)])
def test_tiles_cover_the_picture_and_overlap(size: tuple[int, int]) -> None:
    whole, *tiles = regions(*size, None, (640, 640))
    assert whole == (0, 0, *size)
    seen = np.zeros(size[::-1], int)
    for tile in tiles:
        assert tile.x >= 0 <= tile.y
        assert tile.width == min(640, size[0])
        assert tile.height == min(640, size[1])
        assert tile.of(seen).shape == (tile.height, tile.width)
        tile.of(seen)[...] += 1
    assert seen.min() == 1
    for axis in (0, 1):
        starts = sorted({tile[axis] for tile in tiles})
        assert all(b - a <= 640 * (1 - OVERLAP) for a, b in pairwise(starts))


def test_small_pictures_need_no_tiles() -> None:
    assert regions(640, 480, None, (640, 640)) == [(0, 0, 640, 480)]
    assert regions(9000, 9000, None, None) == [(0, 0, 9000, 9000)]


def test_region_of_interest() -> None:
    assert regions(640, 480, Region(600, 400, 100, 100), None) == [(600, 400, 40, 80)]
    whole, *tiles = regions(2000, 1000, Region(100, 200, 1000, 500), (640, 640))
    assert whole == (100, 200, 1000, 500)
    assert tiles == [(100, 200, 640, 500), (460, 200, 640, 500)]
    with pytest.raises(InvalidOptionError, match="640x480"):
        regions(640, 480, Region(640, 0, 10, 10), None)


@pytest.mark.parametrize(
    "roi", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 5), (0, 0, 5, 5.0), "abcd", 5, (True, 0, 5, 5)]
)
def test_wrong_regions(roi: object) -> None:
    with pytest.raises(InvalidOptionError, match="roi"):
        check_region(roi)


def test_right_regions() -> None:
    assert check_region(None) is None
    assert check_region(np.array([1, 2, 3, 4])) == Region(1, 2, 3, 4)


def test_tiles_need_a_size() -> None:
    assert tile_size(640) == (640, 640)
    assert tile_size((640, 384)) == (640, 384)
    with pytest.raises(InvalidOptionError, match="input_size"):
        tile_size(None)


def test_merge_moves_faces_into_the_picture() -> None:
    found = merge([(Region(100, 50, 80, 80), Faces([[1, 2, 30, 40]], [0.9], LANDMARKS))], **OPTIONS)
    assert found.boxes.tolist() == [[101, 52, 130, 90]]
    assert np.array_equal(found.landmarks, LANDMARKS + np.array([100, 50]))


def test_merge_keeps_the_best_of_each_face_and_drops_cut_ones() -> None:
    whole, left, right = Region(0, 0, 200, 100), Region(0, 0, 120, 100), Region(80, 0, 120, 100)
    one = Faces([[90, 10, 110, 40]], [0.7])
    cut = Faces([[100, 50, 120, 80]], [0.95])
    rest_of_it = Faces([[10, 10, 30, 40], [20, 50, 50, 80]], [0.9, 0.8])
    found = merge([(whole, one), (left, cut), (right, rest_of_it)], **OPTIONS)
    assert found.scores == pytest.approx([0.9, 0.8])
    assert found.boxes.tolist() == [[90, 10, 110, 40], [100, 50, 130, 80]]


def test_faces_at_the_border_of_the_picture_are_not_cut() -> None:
    whole, tile = Region(0, 0, 200, 100), Region(80, 0, 120, 100)
    face = Faces([[100, 70, 120, 100]], [0.9])
    assert len(merge([(whole, Faces.empty()), (tile, face)], **OPTIONS)) == 1


def test_merge_limits() -> None:
    faces = Faces([[0, 0, 30, 20], [0, 30, 30, 60], [50, 50, 90, 90]], [0.9, 0.8, 0.7])
    found = [(Region(0, 0, 99, 99), faces)]
    assert len(merge(found, **{**OPTIONS, "min_face": 20})) == 3
    assert merge(found, **{**OPTIONS, "min_face": 21}).scores == pytest.approx([0.8, 0.7])
    assert merge(found, **{**OPTIONS, "min_face": 21, "max_faces": 1}).scores[0] == np.float32(0.8)


def mosaic(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A 4K picture of 12 x 8 portraits of 270 pixels, each face some 27 pixels wide.

    Returns:
        The picture, and the labelled boxes as x, y, width, height.
    """
    canvas, boxes = np.full((2160, 3840, 3), 127, np.uint8), []
    lines = (data / "landmarks" / "label.txt").read_text().splitlines()
    wanted = [(a[2:], b.split()) for a, b in zip(lines[:-1:2], lines[1::2], strict=True)]
    for index, (name, numbers) in enumerate(wanted[:: len(wanted) // 96][:96]):
        picture = cv2.imread(str(data / "landmarks" / "images" / name))
        x, y, width, height = (float(number) for number in numbers[:4])
        scale = 27 / width
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        left, top = 320 * (index % 12) + 37 * (index % 5), 270 * (index // 12) + 31 * (index % 4)
        rows, columns = min(picture.shape[0], 2160 - top), min(picture.shape[1], 3840 - left)
        canvas[top : top + rows, left : left + columns] = picture[:rows, :columns]
        boxes.append((left + x * scale, top + y * scale, width * scale, height * scale))
    return canvas, np.array(boxes)


def recall(faces: Faces, boxes: NDArray[np.float64]) -> float:
    """Share of the boxes whose centre lies in a found face of about their size."""
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    inside = (faces.boxes[:, None, :2] < centres) & (centres < faces.boxes[:, None, 2:])
    widths = (faces.boxes[:, 2] - faces.boxes[:, 0])[:, None] / boxes[:, 2]
    return float((inside.all(2) & (widths < 2) & (widths > 0.5)).any(0).mean())


def test_tiles_find_small_faces_of_a_4k_picture(data: Path) -> None:
    image, boxes = mosaic(data)
    with Detector("onnxruntime") as detector:
        plain = recall(detector(image), boxes)
    with Detector("onnxruntime", tile=True) as detector:
        found = detector(image)
        assert detector.profile["infer"] > 0
    print(f"recall {plain:.3f} without tiles, {recall(found, boxes):.3f} with")
    assert plain < 0.3
    assert recall(found, boxes) > 0.8
    assert len(found) < 1.15 * len(boxes)
