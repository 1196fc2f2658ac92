"""mAP@0.5:0.95 and recall by height against hand-derived values and a slow COCO evaluation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.evaluation.average_precision import Detections
from edgeface.evaluation.matching import Matches, match, mean_average_precision, recall

Picture = tuple[list[list[float]], list[float], list[list[float]], list[bool]]

A, B = [0.0, 0, 100, 100], [200.0, 0, 240, 40]
NOWHERE = [300.0, 300, 320, 320]


def matched(*pictures: Picture) -> Matches:
    """Match pictures given as (boxes, scores, faces, keep)."""
    return match(
        [Detections.sort(np.array(p[0]), np.array(p[1])) for p in pictures],
        [np.array(p[2], float).reshape(-1, 4) for p in pictures],
        [np.array(p[3], bool) for p in pictures],
    )


def mean_ap(*pictures: Picture) -> float:
    return mean_average_precision(matched(*pictures))


def test_perfect_boxes_reach_one() -> None:
    assert mean_ap(([A, B], [0.9, 0.3], [A, B], [True, True])) == pytest.approx(1)


def test_a_loose_box_counts_only_up_to_its_overlap() -> None:
    # IoU 0.72 passes 0.50, 0.55, 0.60, 0.65 and 0.70: five of ten thresholds.
    assert mean_ap(([[0.0, 0, 100, 72]], [0.9], [A], [True])) == pytest.approx(0.5)


def test_one_of_two_faces_covers_51_of_101_recall_points() -> None:
    assert mean_ap(([A], [0.9], [A, B], [True, True])) == pytest.approx(51 / 101)


def test_false_positive_above_the_only_face() -> None:
    assert mean_ap(([NOWHERE, A], [0.9, 0.4], [A], [True])) == pytest.approx(0.5)


def test_ignored_faces_excuse_any_number_of_detections() -> None:
    assert mean_ap(([B, B, A], [0.9, 0.8, 0.7], [A, B], [True, False])) == pytest.approx(1)


def test_a_face_takes_one_detection_and_the_next_takes_its_neighbour() -> None:
    # The second detection overlaps A most, but A is taken and its neighbour is free.
    neighbour = [0.0, 0, 100, 90]
    matches = matched(([A, [0.0, 0, 100, 96]], [0.9, 0.8], [A, neighbour], [True, True]))
    assert matches.hit[0].tolist() == [True, True]
    assert matches.face_scores.tolist() == [0.9, 0.8]


def test_no_face_gives_nan_and_no_detection_zero() -> None:
    assert math.isnan(mean_ap(([A], [0.9], [], [])))
    assert mean_ap(([], [], [A], [True])) == 0


def test_recall_by_height_and_score() -> None:
    matches = matched(
        ([A, B], [0.9, 0.3], [A, B], [True, True]), ([], [], [[0.0, 0, 9, 40]], [True])
    )
    assert recall(matches, 0.02) == pytest.approx(2 / 3)
    assert recall(matches, 0.5) == pytest.approx(1 / 3)
    assert recall(matches, 0.02, 32, 64) == pytest.approx(1 / 2)
    assert recall(matches, 0.5, 32, 64) == 0
    assert recall(matches, 0.3, 40, 41) == pytest.approx(1 / 2)
    assert recall(matches, 0.5, 64) == 1
    assert math.isnan(recall(matches, 0.5, 0, 40))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_slow_coco_evaluation(seed: int) -> None:
    random = np.random.default_rng(seed)
    detections, faces, keep = [], [], []
    for _ in range(12):
        count = int(random.integers(0, 7))
        corner, side = random.uniform(0, 80, (count, 2)), random.uniform(10, 60, (count, 2))
        truth = np.hstack([corner, corner + side])
        boxes = np.repeat(truth, 2, axis=0) + random.normal(0, 2.5, (2 * count, 4))
        boxes = np.vstack([boxes, [[90.0, 90, 120, 120]]])
        detections.append(Detections.sort(boxes, random.random(len(boxes))))
        faces.append(truth)
        keep.append(random.random(count) < 0.75)
    fast = mean_average_precision(match(detections, faces, keep))
    assert 0.05 < fast < 0.95
    assert fast == pytest.approx(slow_mean_ap(detections, faces, keep), abs=1e-6)


def slow_mean_ap(
    detections: list[Detections], faces: list[NDArray[np.float64]], keep: list[NDArray[np.bool_]]
) -> float:
    total = sum(bool(k) for mask in keep for k in mask)
    values = []
    for threshold in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
        judged: list[tuple[float, bool]] = []
        for d, f, mask in zip(detections, faces, keep, strict=True):
            free = {j for j in range(len(f)) if mask[j]}
            for box, score in zip(d.boxes, d.scores, strict=True):
                overlaps = {j: plain_iou(box, f[j]) for j in range(len(f))}
                mine = max(free, key=lambda j: overlaps[j], default=None)
                if mine is not None and overlaps[mine] >= threshold:
                    free.remove(mine)
                    judged.append((float(score), True))
                elif not any(overlaps[j] >= threshold for j in range(len(f)) if not mask[j]):
                    judged.append((float(score), False))
        judged.sort(reverse=True)
        curve = []
        for count in range(1, len(judged) + 1):
            found = sum(hit for _, hit in judged[:count])
            curve.append((found / total, found / count))
        points = [
            max((precision for r, precision in curve if r >= point / 100), default=0.0)
            for point in range(101)
        ]
        values.append(sum(points) / 101)
    return sum(values) / 10


def plain_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(width * height / (both - width * height))
