"""Greedy non-maximum suppression: OpenCV's, with a short cut for crowds.

OpenCV compares every box with every better one that stayed, which takes 10 ms for 500 faces of ten
boxes each. In a crowd the boxes lie in islands, and no box of one island ever overlaps one of
another enough; so all islands lose the boxes of their best face at once.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]

CROWD = 512
ROUNDS = 8
# Share of the boxes that a round has to drop.
WORTHWHILE = 0.02
CELLS = 96


def nms(boxes: Floats, scores: Floats, threshold: float) -> Indices:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) x1, y1, x2, y2, finite, x1 <= x2 and y1 <= y2.
        scores: (N,), above 0.
        threshold: of two boxes whose IoU is above it, the better one stays.

    Returns:
        Indices of the boxes that stay, best first.
    """
    if len(boxes) <= CROWD:
        return _opencv(boxes, scores, threshold)
    threshold = float(np.float32(threshold))  # as OpenCV has it
    order = np.argsort(-scores, kind="stable")
    sides = np.ascontiguousarray(boxes[order].T, np.float64)
    place = np.arange(len(order))
    label = islands(sides, threshold)
    kept: list[Indices] = []
    for _ in range(ROUNDS):
        first = np.full(label.max() + 1, -1)
        first[label[::-1]] = np.arange(len(label))[::-1]
        best = first[first >= 0]
        stays = _overlap(sides, sides[:, first[label]]) <= threshold
        stays[best] = False
        kept.append(place[best])
        sides, label, place = sides[:, stays], label[stays], place[stays]
        if len(place) <= CROWD or stays.mean() > 1 - WORTHWHILE:
            break
    rest = order[place]
    kept.append(place[_opencv(boxes[rest], scores[rest], threshold)])
    return order[np.sort(np.concatenate(kept))]


def _opencv(boxes: Floats, scores: Floats, threshold: float) -> Indices:
    rectangles = boxes.astype(np.float64)
    rectangles[:, 2:] -= rectangles[:, :2]
    kept = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0.0, threshold)
    return np.array(kept, np.intp).reshape(-1)


def islands(sides: Floats, threshold: float) -> NDArray[np.int32]:
    """Label boxes so that two of different labels never have an IoU above the threshold.

    Two boxes whose IoU is above t still meet when both are shrunk to 1 - t of their size: along
    either axis the longer one, b, covers at least t * b of the other, a, so that their centres are
    at most (a + b) / 2 - t * b <= (1 - t) * (a + b) / 2 apart. Boxes that meet share a cell.

    Args:
        sides: float64 (4, N): x1, y1, x2, y2 of at least one box.
        threshold: IoU, 0..1.

    Returns:
        int32 (N,): the island of each box.
    """
    low, high = sides[:2], sides[2:]
    cut = (high - low) * (threshold / 2)
    low, high = low + cut, high - cut
    start = low.min(1, keepdims=True)
    scale = (CELLS - 1) / max(float((high - start).max()), 1e-9)
    left, top = ((low - start) * scale).astype(np.intp)
    right, bottom = ((high - start) * scale).astype(np.intp) + 1
    side = CELLS + 1
    enter = np.concatenate([top * side + left, bottom * side + right])
    leave = np.concatenate([top * side + right, bottom * side + left])
    steps = np.bincount(enter, minlength=side * side) - np.bincount(leave, minlength=side * side)
    covered = steps.reshape(side, side).cumsum(0).cumsum(1) > 0
    labels = cv2.connectedComponents(covered.view(np.uint8), connectivity=4)[1]
    found: NDArray[np.int32] = labels[top, left]
    return found


def _overlap(sides: Floats, others: Floats) -> Floats:
    """IoU of each box (4, N) with its counterpart (4, N); 0 where both are empty."""
    width, height = np.minimum(sides[2:], others[2:]) - np.maximum(sides[:2], others[:2])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (sides[2] - sides[0]) * (sides[3] - sides[1])
    areas += (others[2] - others[0]) * (others[3] - others[1])
    iou: Floats = shared / np.maximum(areas - shared, np.finfo(np.float64).tiny)
    return iou
