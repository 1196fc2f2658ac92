"""NMS by hand, and its short cut for crowds against OpenCV's own loop."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import nms as module
from edgeface.nms import CROWD, islands, nms

Floats = NDArray[np.float32]


A, B, FAR = [0, 0, 10, 10], [0, 5, 10, 15], [50, 50, 60, 60]


@pytest.mark.parametrize(
    ("boxes", "threshold", "kept"),
    [
        ([A, B, FAR], 0.3, [0, 2]),  # IoU of A and B is 50 / 150
        ([A, B, FAR], 0.34, [0, 1, 2]),
        ([A, A, A], 0.99, [0]),
        ([A, A], 1.0, [0, 1]),
        ([A, [10, 0, 20, 10]], 0.0, [0, 1]),  # they touch
        ([A, [0, 4, 10, 14], [0, 8, 10, 18]], 0.4, [0, 2]),  # the second falls, so the third stays
        ([A, [2.5, 0, 12.5, 10]], 0.6, [0, 1]),  # exactly at the threshold
        ([A, [2.4, 0, 12.4, 10]], 0.6, [0]),
        ([[0, 0, 100, 100], [40, 40, 50, 50]], 0.4, [0, 1]),  # inside, but IoU is 0.01
        ([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5]], 0.3, [0]),  # far below a pixel
    ],
)
def test_nms_by_hand(boxes: list[list[float]], threshold: float, kept: list[int]) -> None:
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    assert nms(np.array(boxes, np.float32), scores, threshold).tolist() == kept


def test_nms_takes_the_best_first() -> None:
    boxes = np.array([A, B, FAR], np.float32)
    assert nms(boxes, np.array([0.5, 0.9, 0.7], np.float32), 0.3).tolist() == [1, 2]
    assert nms(boxes[:0], np.empty(0, np.float32), 0.3).tolist() == []


def plain(boxes: Floats, scores: Floats, threshold: float) -> list[int]:
    """All boxes through OpenCV at once."""
    rectangles = boxes.astype(np.float64)
    rectangles[:, 2:] -= rectangles[:, :2]
    kept = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0.0, threshold)
    return np.asarray(kept, np.intp).reshape(-1).tolist()


def crowd(seed: int, faces: int, each: int, side: int = 400) -> tuple[Floats, Floats]:
    """Boxes around faces of 4 to 90 pixels, some of which overlap, with scores that tie."""
    rng = np.random.default_rng(seed)
    sizes = np.repeat(np.exp(rng.uniform(np.log(4), np.log(90), (faces, 1))), each, 0)
    centres = np.repeat(rng.uniform(0, side, (faces, 2)), each, 0)
    centres += rng.normal(0, 0.15, centres.shape) * sizes
    halves = sizes * np.exp(rng.normal(0, 0.2, centres.shape)) / 2
    boxes = np.concatenate([centres - halves, centres + halves], 1).astype(np.float32)
    return boxes, rng.uniform(0.1, 1, len(boxes)).round(2).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.4, 0.7, 1.0])
@pytest.mark.parametrize(
    ("faces", "each"), [(1, 900), (5, 200), (60, 12), (600, 1), (500, 4), (2000, 1)]
)
def test_a_crowd_is_what_opencv_makes_of_it(faces: int, each: int, threshold: float) -> None:
    for seed in range(3):
        boxes, scores = crowd(seed, faces, each)
        assert len(boxes) > CROWD
        assert nms(boxes, scores, threshold).tolist() == plain(boxes, scores, threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_small_sets_take_the_short_cut_as_well(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CROWD", 0)
    for seed in range(40):
        boxes, scores = crowd(seed, 1 + seed, 1 + seed % 7, side=150)
        assert nms(boxes, scores, threshold).tolist() == plain(boxes, scores, threshold)


@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.8])
def test_no_two_islands_overlap(threshold: float) -> None:
    boxes, _ = crowd(0, 120, 4)
    label = islands(boxes.T.astype(np.float64), threshold)
    assert len(set(label.tolist())) > 1
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    wide = np.minimum(x2, x2[:, None]) - np.maximum(x1, x1[:, None])
    high = np.minimum(y2, y2[:, None]) - np.maximum(y1, y1[:, None])
    shared = np.maximum(wide, 0) * np.maximum(high, 0)
    areas = (x2 - x1) * (y2 - y1)
    iou = shared / (areas + areas[:, None] - shared)
    assert iou[label != label[:, None]].max() <= threshold


def test_a_crowd_of_one_place_and_one_far_away() -> None:
    boxes = np.array([[5, 5, 9, 9]] * CROWD + [[1e30, 0, 2e30, 1e30]], np.float32)
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    assert nms(boxes, scores, 0.4).tolist() == [0, CROWD]
    assert nms(np.zeros((CROWD + 1, 4), np.float32), scores, 0.4).tolist()[0] == 0
