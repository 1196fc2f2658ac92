"""The official AP against hand-derived values and a slow, literal replay of the protocol."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.evaluation.average_precision import Detections, box_iou, wider_average_precision

Picture = tuple[list[list[float]], list[float], list[list[float]], list[bool]]

A, B, C = [0.0, 0, 20, 20], [100.0, 0, 130, 30], [0.0, 100, 40, 150]
NOWHERE, ELSEWHERE = [300.0, 300, 320, 320], [400.0, 400, 420, 420]


def average_precision(*pictures: Picture) -> float:
    """AP of pictures given as (boxes, scores, faces, keep)."""
    detections = [Detections.sort(np.array(p[0]), np.array(p[1])) for p in pictures]
    faces = [np.array(p[2], float).reshape(-1, 4) for p in pictures]
    keep = [np.array(p[3], bool) for p in pictures]
    return wider_average_precision(detections, faces, {"subset": keep})["subset"]


def test_perfect_predictions_reach_one() -> None:
    assert average_precision(
        ([A, B], [0.9, 0.7], [A, B], [True, True]), ([C], [0.8], [C], [True])
    ) == pytest.approx(1)


def test_false_positive_above_the_only_face_halves_precision() -> None:
    assert average_precision(([NOWHERE, A], [0.9, 0.4], [A], [True])) == pytest.approx(1 / 2)


def test_false_positive_below_every_face_costs_nothing() -> None:
    assert average_precision(([A, NOWHERE], [0.9, 0.4], [A], [True])) == pytest.approx(1)


def test_duplicate_counts_as_a_proposal_that_recalls_nothing() -> None:
    # recall 1/2 at precision 1, then 2/2 at precision 2/3
    assert average_precision(([A, A, B], [0.9, 0.8, 0.4], [A, B], [True, True])) == pytest.approx(
        1 / 2 + 1 / 2 * 2 / 3
    )


def test_detection_on_an_ignored_face_does_not_count() -> None:
    picture = ([A, A, B], [0.9, 0.8, 0.4], [A, B])
    assert average_precision((*picture, [False, True])) == pytest.approx(1)
    assert average_precision((*picture, [True, True])) < 1


def test_detection_belongs_to_its_nearest_face_even_where_that_is_ignored() -> None:
    # The box overlaps the kept face by 0.5 < IoU < 1, but the ignored one more.
    near, kept = [0.0, 0, 19, 20], [0.0, 0, 14, 20]
    assert average_precision(([near], [0.9], [near, kept], [False, True])) == 0


def test_a_second_choice_is_not_matched() -> None:
    # Both detections are nearest to the same face; the second is a duplicate though it also
    # overlaps the other face by more than a half.
    face, other = [0.0, 0, 99, 99], [0.0, 0, 99, 69]
    near = [0.0, 0, 99, 94]
    assert average_precision(
        ([face, near], [0.9, 0.4], [face, other], [True, True])
    ) == pytest.approx(1 / 2)


def test_detections_in_pictures_without_faces_do_not_count() -> None:
    assert average_precision(
        ([NOWHERE, ELSEWHERE], [0.99, 0.98], [], []), ([A], [0.5], [A], [True])
    ) == pytest.approx(1)


def test_faces_in_pictures_without_detections_count_for_recall() -> None:
    assert average_precision(([A], [0.5], [A], [True]), ([], [], [B], [True])) == pytest.approx(0.5)


def test_scores_between_two_thresholds_enter_together() -> None:
    # 0.5004 (a face) and 0.5001 (none) both enter at the threshold 0.500: precision 2/3 there,
    # where exact ranking would give an average precision of 1.
    assert average_precision(
        ([A, B, NOWHERE, ELSEWHERE], [1.0, 0.5004, 0.5001, 0.0], [A, B], [True, True])
    ) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_scores_are_normalised_over_all_pictures() -> None:
    # Scores 2e-4 apart share a threshold unless they are stretched to 0..1 first.
    assert average_precision(
        ([A, NOWHERE], [0.4004, 0.4000], [A], [True]), ([B], [0.4002], [B], [True])
    ) == pytest.approx(1)


def test_a_score_equal_to_a_threshold_passes() -> None:
    # 0.5 enters with 0.5004, not one threshold later.
    assert average_precision(
        ([A, B, NOWHERE, ELSEWHERE], [1.0, 0.5004, 0.5, 0.0], [A, B], [True, True])
    ) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_border_pixels_count_in_the_overlap() -> None:
    # 10 x 10 against 10 x 5 pixels with the border: exactly a half, which matches.
    assert average_precision(([[0.0, 0, 9, 4]], [0.9], [[0.0, 0, 9, 9]], [True])) == 1
    assert average_precision(([[0.0, 0, 9, 3.9]], [0.9], [[0.0, 0, 9, 9]], [True])) == 0


def test_no_detection_gives_zero_and_no_face_gives_nan() -> None:
    assert average_precision(([], [], [A], [True])) == 0
    assert math.isnan(average_precision(([A], [0.5], [A], [False])))


def test_order_of_the_boxes_is_no_matter() -> None:
    forward = ([A, A, B, NOWHERE], [0.9, 0.8, 0.4, 0.6], [A, B], [True, True])
    backward = (forward[0][::-1], forward[1][::-1], *forward[2:])
    assert average_precision(forward) == pytest.approx(average_precision(backward))


def test_box_iou_by_hand() -> None:
    iou = box_iou(np.array([[0.0, 0, 10, 10], [5, 5, 5, 5]]), np.array([[5.0, 0, 15, 10]]))
    assert iou.tolist() == [[pytest.approx(50 / 150)], [0]]


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_a_literal_replay_of_the_protocol(seed: int) -> None:
    detections, faces, keep = random_pictures(np.random.default_rng(seed), ties=seed % 2 == 0)
    fast = wider_average_precision(detections, faces, keep)
    assert 0.05 < fast["some"] < 0.95
    for subset, masks in keep.items():
        assert fast[subset] == pytest.approx(replay(detections, faces, masks), abs=1e-6)


def random_pictures(
    random: np.random.Generator, ties: bool
) -> tuple[list[Detections], list[NDArray[np.float64]], dict[str, list[NDArray[np.bool_]]]]:
    """Crowded pictures with jittered, doubled and wrong boxes; some without faces or boxes."""
    detections, faces = [], []
    keep: dict[str, list[NDArray[np.bool_]]] = {"some": [], "all": [], "few": []}
    for index in range(14):
        count = 0 if index == 3 else int(random.integers(1, 9))
        corner, side = random.uniform(0, 120, (count, 2)), random.uniform(8, 60, (count, 2))
        truth = np.hstack([corner, corner + side])
        jittered = np.repeat(truth, 2, axis=0)[random.random(2 * count) < 0.75]
        jittered = jittered + random.normal(0, 4, jittered.shape)
        wrong = random.uniform(0, 160, (int(random.integers(1, 6)), 2))
        boxes = np.vstack([jittered, np.hstack([wrong, wrong + random.uniform(5, 40)])])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = random.beta(2, 2, len(boxes))
        if ties:
            scores = np.round(scores, 1)
        if index == 5:
            boxes, scores = boxes[:0], scores[:0]
        detections.append(Detections.sort(boxes, scores))
        faces.append(truth)
        keep["some"].append(random.random(count) < 0.7)
        keep["all"].append(np.ones(count, bool))
        keep["few"].append(random.random(count) < 0.2)
    return detections, faces, keep


def replay(
    detections: list[Detections], faces: list[NDArray[np.float64]], keep: list[NDArray[np.bool_]]
) -> float:
    """The protocol as it is told: for each threshold walk each picture's list from the top."""
    every = [float(s) for d in detections for s in d.scores]
    lowest, highest = min(every), max(every)
    total = sum(bool(k) for mask in keep for k in mask)
    nearest = [
        [
            max(((pixel_iou(box, face), -j) for j, face in enumerate(f)), default=None)
            for box in d[0]
        ]
        for d, f in zip(detections, faces, strict=True)
    ]
    curve = []
    for step in range(1, 1001):
        threshold = 1 - step / 1000
        proposals = recalled = 0
        for d, f, mask, best in zip(detections, faces, keep, nearest, strict=True):
            seen: set[int] = set()
            for score, overlap in zip(d.scores, best, strict=True):
                if len(f) == 0 or (float(score) - lowest) / (highest - lowest) < threshold:
                    continue
                if overlap is not None and overlap[0] >= 0.5:
                    if not mask[-overlap[1]]:
                        continue
                    seen.add(-overlap[1])
                proposals += 1
            recalled += len(seen)
        curve.append((recalled / total, recalled / proposals if proposals else 0.0))
    area, before = 0.0, 0.0
    for index, (recall, _) in enumerate(curve):
        area += (recall - before) * max(precision for _, precision in curve[index:])
        before = recall
    return area


def pixel_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return float(width * height / (both - width * height))
