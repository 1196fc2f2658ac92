"""Anchor matching: which prior boxes learn which face, in numpy, inside the data workers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


@dataclass(frozen=True)
class Matching:
    """Rules of matching; the thresholds default to RetinaFace's (section 4.2, retinaface.txt).

    Attributes:
        positive: an anchor learns the face that it overlaps by at least this IoU.
        negative: below this IoU with every face an anchor is background; between, ignored.
        forced: each face also takes its best anchor down to this IoU, so that small faces and
            faces between two scales are not lost; below it the face is ignored.
        smallest: faces with a longer side under this many pixels are ignored.
        ignored_share: an anchor whose area lies by this share in an ignored face is no background.
    """

    positive: float = 0.5
    negative: float = 0.3
    forced: float = 0.06
    smallest: float = 4.0
    ignored_share: float = 0.5


@dataclass(frozen=True)
class Targets:
    """What the anchors of one sample learn.

    Attributes:
        labels: int8 (A,): POSITIVE, NEGATIVE or IGNORED.
        index: int64 (K,): the positive anchors.
        deltas: float32 (K, 4): their box deltas.
        landmarks: float32 (K, 10): their landmark offsets; NaN where unlabelled.
    """

    labels: NDArray[np.int8]
    index: NDArray[np.int64]
    deltas: Floats
    landmarks: Floats


def corners(priors: Floats) -> Floats:
    """Centre-size boxes (A, 4) as corners (A, 4)."""
    half = priors[:, 2:] / 2
    return np.concatenate([priors[:, :2] - half, priors[:, :2] + half], 1)


def intersections(boxes: Floats, others: Floats) -> Floats:
    """Areas (N, M) that two sets of corner boxes (N, 4) and (M, 4) share."""
    top_left = np.maximum(boxes[:, None, :2], others[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: Floats = (bottom_right - top_left).clip(0).prod(2)
    return shared


def areas(boxes: Floats) -> Floats:
    """Areas (N,) of corner boxes (N, 4)."""
    product: Floats = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return product


def match(
    priors: Floats,
    variances: tuple[float, float],
    boxes: Floats,
    landmarks: Floats,
    ignore: NDArray[np.bool_],
    rules: Matching,
) -> Targets:
    """Assign faces to prior boxes.

    Args:
        priors: (A, 4) centre-size boxes.
        variances: scale of the deltas.
        boxes: (N, 4) corner boxes of the faces.
        landmarks: (N, 5, 2) landmarks, NaN where unlabelled.
        ignore: (N,) faces that are neither learnt nor punished.
        rules: the thresholds.
    """
    anchors = corners(priors)
    labels = np.full(len(priors), NEGATIVE, np.int8)
    ignore = ignore | ((boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) < rules.smallest)
    faces = np.flatnonzero(~ignore)
    best_face = np.zeros(len(priors), np.int64)
    if len(faces):
        shared = intersections(anchors, boxes[faces])
        overlap = shared / (areas(anchors)[:, None] + areas(boxes[faces])[None] - shared)
        best = overlap.argmax(1)
        best_overlap = overlap[np.arange(len(priors)), best]
        best_face = faces[best]
        labels[best_overlap >= rules.negative] = IGNORED
        labels[best_overlap >= rules.positive] = POSITIVE
        champion = overlap.argmax(0)
        reached = overlap[champion, np.arange(len(faces))]
        order = np.argsort(reached)
        order = order[reached[order] >= rules.forced]
        labels[champion[order]] = POSITIVE
        best_face[champion[order]] = faces[order]
        ignore[faces[reached < rules.forced]] = True
    if ignore.any():
        share = intersections(anchors, boxes[ignore]) / areas(anchors)[:, None]
        labels[(labels == NEGATIVE) & (share.max(1) >= rules.ignored_share)] = IGNORED
    index = np.flatnonzero(labels == POSITIVE)
    chosen = best_face[index]
    return Targets(
        labels,
        index,
        encode_boxes(priors[index], boxes[chosen], variances),
        encode_landmarks(priors[index], landmarks[chosen], variances),
    )


def unmatched(anchors: int) -> Targets:
    """Targets of a sample whose anchors the objective itself assigns: none learns anything yet."""
    return Targets(
        np.full(anchors, NEGATIVE, np.int8),
        np.empty(0, np.int64),
        np.empty((0, 4), np.float32),
        np.empty((0, 10), np.float32),
    )


def encode_boxes(priors: Floats, boxes: Floats, variances: tuple[float, float]) -> Floats:
    """Box deltas (K, 4) that decode to the corner boxes (K, 4)."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    centre_deltas = (centres - priors[:, :2]) / (priors[:, 2:] * variances[0])
    size_deltas = np.log(sizes / priors[:, 2:]) / variances[1]
    return np.concatenate([centre_deltas, size_deltas], 1).astype(np.float32)


def encode_landmarks(priors: Floats, landmarks: Floats, variances: tuple[float, float]) -> Floats:
    """Landmark offsets (K, 10) that decode to the points (K, 5, 2)."""
    offsets = (landmarks - priors[:, None, :2]) / (priors[:, None, 2:] * variances[0])
    return offsets.reshape(-1, 10).astype(np.float32)
