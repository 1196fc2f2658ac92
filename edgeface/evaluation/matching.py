"""mAP@0.5:0.95 after COCO, and recall by the height of the face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeface.evaluation.average_precision import Detections, box_iou

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Matches:
    """How the detections of all pictures meet the faces that count.

    Attributes:
        scores: (D,) of all detections.
        hit: bool (10, D): at each IoU threshold, the detection is a face's own.
        counted: bool (10, D): False where the detection lies on an ignored face.
        heights: (F,) in pixels of the original picture, of the faces that count.
        face_scores: (F,) score of the detection that found the face at IoU 0.5, else -inf.
    """

    scores: NDArray[np.float64]
    hit: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    heights: NDArray[np.float64]
    face_scores: NDArray[np.float64]


def match(
    detections: Sequence[Detections],
    faces: Sequence[NDArray[np.float64]],
    keep: Sequence[NDArray[np.bool_]],
) -> Matches:
    """Give each detection, best score first, the free face that it overlaps most.

    A face takes one detection; a detection without one that overlaps an ignored face does not
    count, and an ignored face excuses any number.

    Args:
        detections: one entry per picture.
        faces: for each picture (N, 4) x1, y1, x2, y2.
        keep: for each picture (N,): False for ignored faces.
    """
    parts = [_match_picture(*entry) for entry in zip(detections, faces, keep, strict=True)]
    return Matches(
        scores=np.concatenate([d.scores for d in detections]),
        hit=np.concatenate([part[0] for part in parts], axis=1),
        counted=np.concatenate([part[1] for part in parts], axis=1),
        heights=np.concatenate([f[k, 3] - f[k, 1] for f, k in zip(faces, keep, strict=True)]),
        face_scores=np.concatenate([part[2] for part in parts]),
    )


def _match_picture(
    detections: Detections, faces: NDArray[np.float64], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    levels = np.arange(len(IOU_THRESHOLDS))
    hit = np.zeros((len(levels), len(detections.scores)), np.bool_)
    counted = np.ones_like(hit)
    iou = box_iou(detections.boxes, faces)
    valid = iou[:, keep]
    free = np.ones((len(levels), valid.shape[1]), np.bool_)
    face_scores = np.full(valid.shape[1], -np.inf)
    ignored = iou[:, ~keep].max(axis=1, initial=0)
    for d in np.flatnonzero(iou.max(axis=1, initial=0) >= IOU_THRESHOLDS[0]):
        if valid.shape[1]:
            overlap = valid[d] * free
            best = overlap.argmax(axis=1)
            hit[:, d] = overlap[levels, best] >= IOU_THRESHOLDS
            free[levels[hit[:, d]], best[hit[:, d]]] = False
            if hit[0, d]:
                face_scores[best[0]] = detections.scores[d]
        counted[:, d] = hit[:, d] | (ignored[d] < IOU_THRESHOLDS)
    return hit, counted, face_scores


def mean_average_precision(matches: Matches) -> float:
    """mAP@0.5:0.95: the mean over 10 IoU thresholds of the 101-point interpolated AP.

    NaN where no face counts.
    """
    if not len(matches.heights):
        return float("nan")
    order = np.argsort(-matches.scores, kind="stable")
    precisions = []
    for hit, counted in zip(matches.hit[:, order], matches.counted[:, order], strict=True):
        found = np.cumsum(hit[counted])
        precision = found / np.arange(1, len(found) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(found / len(matches.heights), RECALL_POINTS, side="left")
        precisions.append(np.append(envelope, 0.0)[at].mean())
    return float(np.mean(precisions))


def recall(matches: Matches, score: float, low: float = 0, high: float = np.inf) -> float:
    """Share of the faces of low <= height < high px that are found at the score threshold.

    NaN where there is no such face.
    """
    chosen = matches.face_scores[(matches.heights >= low) & (matches.heights < high)]
    return float(np.mean(chosen >= score)) if len(chosen) else float("nan")
