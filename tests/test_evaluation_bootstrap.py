"""The bootstrap over pictures, against resampling the pictures themselves."""

from __future__ import annotations

import numpy as np
import pytest

from edgeface.evaluation.average_precision import (
    Detections,
    PictureCounts,
    picture_counts,
    wider_average_precision,
)
from edgeface.evaluation.bootstrap import interval, resampled


def scene(seed: int, pictures: int) -> tuple[list[Detections], list[np.ndarray], list[np.ndarray]]:
    """Faces in a row, most of them found, with false alarms; scores reach from 0 to 1."""
    rng = np.random.default_rng(seed)
    detections, faces = [], []
    for _ in range(pictures):
        count = int(rng.integers(1, 6))
        boxes = np.array([[40.0 * i, 0, 40 * i + 20, 20] for i in range(count)])
        found = boxes[rng.random(count) < 0.8] + rng.uniform(-2, 2)
        false = np.array([[40.0 * i, 100, 40 * i + 20, 120] for i in range(rng.integers(0, 4))])
        everything = np.concatenate([found, false.reshape(-1, 4)])
        detections.append(Detections.sort(everything, rng.random(len(everything))))
        faces.append(boxes)
    far = np.array([[500.0, 500, 510, 510]] * 2)
    detections[0] = Detections.sort(
        np.concatenate([detections[0].boxes, far]), np.append(detections[0].scores, [0.0, 1.0])
    )
    return detections, faces, [np.ones(len(f), bool) for f in faces]


def counts(seed: int, pictures: int = 30) -> PictureCounts:
    detections, faces, keep = scene(seed, pictures)
    return picture_counts(detections, faces, {"hard": keep})["hard"]


def test_a_weighted_count_equals_repeated_pictures() -> None:
    detections, faces, keep = scene(3, 8)
    times = np.array([1, 0, 2, 3, 1, 0, 1, 0])
    chosen = np.repeat(np.arange(8), times)
    repeated = wider_average_precision(
        [detections[i] for i in chosen],
        [faces[i] for i in chosen],
        {"hard": [keep[i] for i in chosen]},
    )["hard"]
    assert counts(3, 8).average_precision(times) == pytest.approx(repeated, abs=1e-12)


def test_the_same_net_differs_by_nothing_and_seeds_are_averaged() -> None:
    first, second = counts(0), counts(0)
    np.testing.assert_array_equal(resampled([first]) - resampled([second]), 0)
    both = resampled([counts(0), counts(1)])
    np.testing.assert_allclose(both, (resampled([counts(0)]) + resampled([counts(1)])) / 2)


def test_the_interval_holds_the_figure_and_narrows_with_pictures() -> None:
    few, many = counts(5, 20), counts(5, 500)
    widths = []
    for counted in (few, many):
        low, high = interval(resampled([counted]))
        assert low < counted.average_precision(np.ones(len(counted.faces))) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_pictures_without_faces_have_no_interval() -> None:
    counted = counts(0)._replace(faces=np.zeros(30, np.int64))
    assert np.isnan(interval(resampled([counted]))).all()
