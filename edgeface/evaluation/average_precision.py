"""WIDER FACE's average precision, as the public Python port of the official tool computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Boxes: TypeAlias = NDArray[np.floating[Any]]

THRESHOLDS = 1000
MIN_IOU = 0.5


class Detections(NamedTuple):
    """Boxes and scores of one picture, in descending order of score.

    Attributes:
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the original picture.
        scores: (N,); any monotonous confidence.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]

    @classmethod
    def sort(cls, boxes: NDArray[Any], scores: NDArray[Any]) -> Detections:
        """Build from boxes in any order; equal scores keep theirs."""
        scores = np.asarray(scores, np.float64).reshape(-1)
        order = np.argsort(-scores, kind="stable")
        return cls(np.asarray(boxes, np.float64).reshape(-1, 4)[order], scores[order])


def box_iou(a: Boxes, b: Boxes, pixel: float = 0.0) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (M, 4) x1, y1, x2, y2: (N, M).

    ``pixel=1`` counts both border pixels as inside, as the official WIDER FACE tool does.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2], dtype=np.float64)
    high = np.minimum(a[:, None, 2:], b[None, :, 2:], dtype=np.float64)
    intersection = np.prod(np.maximum(high - low + pixel, 0), axis=2)
    union = _area(a, pixel)[:, None] + _area(b, pixel)[None, :] - intersection
    iou: NDArray[np.float64] = np.zeros_like(intersection)
    np.divide(intersection, union, out=iou, where=union > 0)
    return iou


def _area(boxes: Boxes, pixel: float) -> NDArray[np.float64]:
    sides = np.subtract(boxes[:, 2:], boxes[:, :2], dtype=np.float64) + pixel
    area: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return area


def wider_average_precision(
    detections: Sequence[Detections],
    faces: Sequence[NDArray[np.float64]],
    keep: Mapping[str, Sequence[NDArray[np.bool_]]],
) -> dict[str, float]:
    """Average precision of each subset under the official protocol.

    A detection belongs to the face that it overlaps most, from an IoU of 0.5 on. Where that face
    is not of the subset, the detection does not count; otherwise it is a proposal, and the first
    one recalls the face. Precision and recall are sampled at 1000 thresholds of the score,
    normalised to 0..1 over all the detections given. In pictures without faces detections do not
    count at all.

    Args:
        detections: one entry per picture.
        faces: for each picture (N, 4) x1, y1, x2, y2.
        keep: for each subset and picture (N,): the faces of the subset.

    Returns:
        Average precision by subset; NaN where a subset has no face.
    """
    counts = picture_counts(detections, faces, keep)
    return {subset: float(c.average_precision(np.ones(len(faces)))) for subset, c in counts.items()}


class PictureCounts(NamedTuple):
    """What each of P pictures adds to the curve of one subset, at 1000 falling thresholds.

    Attributes:
        proposals: int32 (P, 1000): detections that count.
        recalled: int32 (P, 1000): those that are the first on their face.
        faces: int64 (P,): faces of the subset.
    """

    proposals: NDArray[np.int32]
    recalled: NDArray[np.int32]
    faces: NDArray[np.int64]

    def average_precision(self, times: NDArray[Any]) -> NDArray[np.float64]:
        """Average precision (…) where the pictures count so often (…, P); NaN without faces."""
        times = np.asarray(times, np.float64)
        total = (times @ self.faces)[..., None]
        proposals, recalled = times @ self.proposals, times @ self.recalled
        recall = recalled / np.where(total > 0, total, np.nan)
        return _area_under(recall, recalled / np.maximum(proposals, 1))


def picture_counts(
    detections: Sequence[Detections],
    faces: Sequence[NDArray[np.float64]],
    keep: Mapping[str, Sequence[NDArray[np.bool_]]],
) -> dict[str, PictureCounts]:
    """Count by picture and subset; arguments as in ``wider_average_precision``."""
    nearest = [_nearest(d.boxes, f) for d, f in zip(detections, faces, strict=True)]
    ends = np.cumsum([len(d.scores) for d in detections])
    scores = np.split(_normalise(detections), ends[:-1])
    result = {}
    for subset, masks in keep.items():
        outcomes = [_outcome(*pair) for pair in zip(nearest, masks, strict=True)]
        chosen = list(zip(scores, outcomes, strict=True))
        result[subset] = PictureCounts(
            np.stack([_at_thresholds(s[counted]) for s, (counted, _) in chosen]),
            np.stack([_at_thresholds(s[first]) for s, (_, first) in chosen]),
            np.array([mask.sum() for mask in masks], np.int64),
        )
    return result


def _normalise(detections: Sequence[Detections]) -> NDArray[np.float64]:
    """All scores, picture after picture, moved to 0..1."""
    scores = np.concatenate([d.scores for d in detections])
    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    normalised: NDArray[np.float64] = (scores - low) / (high - low if high > low else 1.0)
    return normalised


def _nearest(boxes: NDArray[np.float64], faces: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the face that each box overlaps most, -1 below the least IoU."""
    if not len(faces):
        return np.full(len(boxes), -1)
    iou = box_iou(boxes, faces, pixel=1)
    return np.where(iou.max(axis=1) >= MIN_IOU, iou.argmax(axis=1), -1)


def _outcome(
    nearest: NDArray[np.int64], kept: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which detections count as proposals, and which of those are the first on their face."""
    counted = np.zeros(len(nearest), np.bool_)
    first = np.zeros(len(nearest), np.bool_)
    if len(kept):
        counted[:] = (nearest < 0) | kept[nearest]
        hits = np.flatnonzero(counted & (nearest >= 0))
        first[hits[np.unique(nearest[hits], return_index=True)[1]]] = True
    return counted, first


def _at_thresholds(scores: NDArray[np.float64]) -> NDArray[np.int32]:
    """How many scores reach each threshold, from the highest threshold down."""
    thresholds = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    below = np.searchsorted(np.sort(scores), thresholds, side="left")
    return np.asarray(len(scores) - below, np.int32)


def _area_under(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under the falling envelope of precision over recall (PASCAL VOC 2010), last axis."""
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    area: NDArray[np.float64] = np.sum(np.diff(recall, prepend=0.0) * envelope, axis=-1)
    return area
