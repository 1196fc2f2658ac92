"""Landmark error against hand-derived values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.errors import DatasetError
from edgeface.evaluation.landmarks import evaluate_landmarks, landmark_errors
from edgeface.faces import Faces

POINTS = np.array([[12, 15], [28, 15], [20, 30], [14, 40], [26, 40]], np.float32)
BOX = [0, 0, 40, 90]  # sqrt(width * height) = 60
SECOND = [100, 100, 110, 110]
UNLABELLED = np.full((5, 2), np.nan, np.float32)


@dataclass(frozen=True)
class Labelled:
    image: Path
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]


def faces(boxes: list[list[float]], landmarks: list[NDArray[np.float32]]) -> Faces:
    scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)
    return Faces(np.array(boxes, np.float32), scores, np.array(landmarks, np.float32))


def errors(
    found: Faces, boxes: list[list[int]], landmarks: list[NDArray[np.float32]]
) -> list[float]:
    return landmark_errors(
        found, np.array(boxes, np.float32), np.array(landmarks, np.float32)
    ).tolist()


def test_mean_distance_over_the_root_of_the_box_area() -> None:
    shifted = POINTS + np.float32([3, 4])  # every point 5 px away
    assert errors(faces([BOX], [shifted]), [BOX], [POINTS]) == [pytest.approx(5 / 60)]
    one_off = POINTS.copy()
    one_off[2] += [0, 10]  # one of five points 10 px away
    assert errors(faces([BOX], [one_off]), [BOX], [POINTS]) == [pytest.approx(2 / 60)]


def test_takes_the_detection_that_overlaps_most() -> None:
    found = faces([[0, 0, 40, 60], BOX], [POINTS + 9, POINTS])
    assert errors(found, [BOX], [POINTS]) == [pytest.approx(0)]


def test_a_detection_below_half_overlap_is_no_match() -> None:
    assert math.isnan(errors(faces([[0, 0, 40, 44]], [POINTS]), [BOX], [POINTS])[0])
    assert not math.isnan(errors(faces([[0, 0, 40, 46]], [POINTS]), [BOX], [POINTS])[0])
    assert math.isnan(errors(Faces.empty(), [BOX], [POINTS])[0])


def test_faces_without_labelled_landmarks_are_left_out() -> None:
    found = faces([BOX, SECOND], [POINTS, POINTS])
    assert errors(found, [SECOND, BOX], [UNLABELLED, POINTS]) == [pytest.approx(0)]


def test_report_over_pictures(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.zeros((120, 120, 3), np.uint8))
    pictures = [
        Labelled(path, np.array([BOX, SECOND], np.float32), np.stack([POINTS, POINTS + 85])),
        Labelled(path, np.array([BOX], np.float32), POINTS[None]),
        Labelled(path, np.array([BOX], np.float32), POINTS[None]),
        Labelled(path, np.array([BOX], np.float32), UNLABELLED[None]),
    ]
    answers = iter(
        [
            faces([BOX], [POINTS + np.float32([6, 0])]),
            faces([BOX], [POINTS + np.float32([0, 12])]),
            faces([BOX], [POINTS + np.float32([0, 36])]),
        ]
    )
    report = evaluate_landmarks(lambda _: next(answers), pictures)
    assert (report.images, report.faces, report.found) == (3, 4, 0.75)
    assert report.mean == pytest.approx((6 + 12 + 36) / 3 / 60)
    assert report.median == pytest.approx(12 / 60)
    assert report.to_markdown() == "| 3 | 4 | 0.750 | 30.000 | 20.000 |"


def test_no_face_found_is_none_in_json(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.zeros((120, 120, 3), np.uint8))
    report = evaluate_landmarks(
        lambda _: Faces.empty(), [Labelled(path, np.array([BOX], np.float32), POINTS[None])]
    )
    assert report.to_dict() == {
        "images": 1, "faces": 1, "found": 0.0, "mean": None, "median": None
    }  # fmt: skip


def test_refuses_labels_or_detections_without_landmarks(tmp_path: Path) -> None:
    unlabelled = Labelled(tmp_path, np.array([BOX], np.float32), UNLABELLED[None])
    with pytest.raises(DatasetError, match="five landmarks"):
        evaluate_landmarks(lambda _: Faces.empty(), [unlabelled])
    boxes_only = Faces(np.array([BOX], np.float32), np.array([0.9], np.float32))
    with pytest.raises(DatasetError, match="use a model that has them"):
        errors(boxes_only, [BOX], [POINTS])
