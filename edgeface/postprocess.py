"""From the graph's outputs to faces: threshold, decode the survivors, NMS, back to the picture.

Box coding as in SSD (Liu et al. 2016, section 2.2) and RetinaFace (Deng et al. 2020).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeface.anchors import AnchorSpec, level_priors
from edgeface.errors import NumericalError
from edgeface.faces import Faces
from edgeface.nms import nms

if TYPE_CHECKING:
    from edgeface.preprocess import Letterbox

Floats = NDArray[np.float32]

# What a network says of a box or a point that no face explains: 30 anchors away, or e^60 times the
# anchor's size.
_ABSURD = 300.0
# Logits below minus that give one score, close to 0.
_LEAST = np.float32(80)


def postprocess(
    outputs: Mapping[str, Floats],
    anchors: AnchorSpec,
    letterbox: Letterbox,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_faces: int | None,
    top_k: int = 5000,
    faults: Counter[type[Exception]] | None = None,
) -> Faces:
    """Turn the outputs for one frame into faces in the picture's pixels.

    Anchors whose logit, box or landmarks are not finite, or far beyond what a face explains,
    are dropped, and the frame is counted.

    Args:
        outputs: per level ``logit_{stride}`` (1, M, 1), ``delta_{stride}`` (1, M, 4) and
            ``landmark_{stride}`` (1, M, 10), float32, M anchors in the order of ``level_priors``.
        anchors: the model's anchors.
        letterbox: how the picture was put into the frame.
        score_threshold: only scores above it, 0..1.
        nms_threshold: of two boxes whose IoU is above it, the better one stays, 0..1.
        max_faces: keep at most that many of the best; None: all.
        top_k: candidates that enter NMS.
        faults: gains a ``NumericalError`` for a frame with outputs that are not finite.

    Returns:
        Faces, boxes clipped to the picture; a box that lies wholly outside it is dropped.
    """
    least = _logit(score_threshold)
    size = letterbox.network_height, letterbox.network_width
    broken = False
    survivors = []
    for level in anchors.levels:
        logits = outputs[f"logit_{level.stride}"].reshape(-1)
        best = np.maximum.reduce(logits)
        broken |= bool(best != best)
        if best <= least:
            continue
        [index] = (logits > least).nonzero()
        columns = (
            outputs[f"delta_{level.stride}"].reshape(-1, 4),
            outputs[f"landmark_{level.stride}"].reshape(-1, 10),
            level_priors(level, *size),
        )
        survivors.append((logits.take(index), *(column.take(index, 0) for column in columns)))
    if not survivors:
        _count(faults, broken)
        return Faces.empty()

    logits, deltas, points, priors = (
        np.concatenate(column) if len(column) > 1 else column[0]
        for column in zip(*survivors, strict=True)
    )
    offsets = np.concatenate([deltas, points], 1)
    if len(logits) > top_k:
        order = np.argsort(-logits, kind="stable")[:top_k]
        logits, offsets, priors = logits[order], offsets[order], priors[order]
    if not (_largest(offsets) < _ABSURD and _largest(logits) < np.inf):
        broken = True
        sane = (logits < np.inf) & (np.abs(offsets) < _ABSURD).all(1)
        logits, offsets, priors = logits[sane], offsets[sane], priors[sane]
    _count(faults, broken)

    corners = decode(offsets, priors, anchors.variances)
    corners /= np.array((letterbox.scale_x, letterbox.scale_y), np.float32)
    boxes = corners[:, :2].reshape(-1, 4)
    scores = sigmoid(logits)
    kept = nms(boxes, scores, nms_threshold)
    boxes, scores, landmarks = boxes.take(kept, 0), scores.take(kept), corners.take(kept, 0)[:, 2:]
    limit = np.array((letterbox.width, letterbox.height) * 2, np.float32)
    np.minimum(np.maximum(boxes, 0, out=boxes), limit, out=boxes)
    inside = (boxes[:, :2] < boxes[:, 2:]).all(1)
    if not inside.all():
        boxes, scores, landmarks = boxes[inside], scores[inside], landmarks[inside]
    return Faces(boxes[:max_faces], scores[:max_faces], landmarks[:max_faces])


def sigmoid(logits: Floats) -> Floats:
    """Scores in 0..1 of logits, without overflow."""
    scores: Floats = np.reciprocal(1 + np.exp(np.minimum(-logits, _LEAST)))
    return scores


def decode(offsets: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """Decode box deltas and landmark offsets to points.

    Args:
        offsets: (N, 4 + 2 * L): four box deltas, then L landmarks' x and y offsets.
        priors: (N, 4) centre-size.
        variances: (centre, size) scale of the offsets.

    Returns:
        float32 (N, 2 + L, 2): top left and bottom right corner of the box, then the landmarks.
    """
    centres, sizes = priors[:, None, :2], priors[:, None, 2:]
    pairs = offsets.reshape(len(offsets), offsets.shape[1] // 2, 2)
    halves = np.exp(pairs[:, 1] * variances[1])
    halves *= priors[:, 2:] / 2
    points: Floats = pairs * variances[0]
    points *= sizes
    points += centres
    np.add(points[:, 0], halves, out=points[:, 1])
    points[:, 0] -= halves
    return points


def _largest(values: Floats) -> float:
    """The largest magnitude, or NaN where one is among the values."""
    return float(np.maximum.reduce(np.abs(values), axis=None, initial=0))


def _count(faults: Counter[type[Exception]] | None, broken: bool) -> None:
    if faults is not None and broken:
        faults[NumericalError] += 1


def _logit(score: float) -> float:
    if score <= 0:
        return -math.inf
    return math.inf if score >= 1 else math.log(score / (1 - score))
