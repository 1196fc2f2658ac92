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
    broken = False
    survivors = []
    for level in anchors.levels:
        logits = outputs[f"logit_{level.stride}"].reshape(-1)
        best = np.maximum.reduce(logits)
        broken |= bool(best != best)
        if best <= least:
            continue
        [index] = (logits > least).nonzero()
        survivors.append(
            (
                logits[index],
                level_priors(level, letterbox.network_height, letterbox.network_width)[index],
                outputs[f"delta_{level.stride}"].reshape(-1, 4)[index],
                outputs[f"landmark_{level.stride}"].reshape(-1, 10)[index],
            )
        )
    if not survivors:
        _count(faults, broken)
        return Faces.empty()

    logits, priors, deltas, points = (
        np.concatenate(column) if len(column) > 1 else column[0]
        for column in zip(*survivors, strict=True)
    )
    if len(logits) > top_k:
        order = np.argsort(-logits, kind="stable")[:top_k]
        logits, priors, deltas, points = logits[order], priors[order], deltas[order], points[order]
    calm = _largest(deltas) < _ABSURD and _largest(points) < _ABSURD
    if not (calm and _largest(logits) < np.inf):
        broken = True
        offsets = np.concatenate([deltas, points], 1)
        sane = (logits < np.inf) & (np.abs(offsets) < _ABSURD).all(1)
        logits, priors, deltas, points = logits[sane], priors[sane], deltas[sane], points[sane]
    _count(faults, broken)

    scale = np.array([letterbox.scale_x, letterbox.scale_y] * 2, np.float32)
    boxes = decode_boxes(deltas, priors, anchors.variances) / scale
    scores: Floats = np.reciprocal(1 + np.exp(np.minimum(-logits, _LEAST)))
    kept = nms(boxes, scores, nms_threshold)
    boxes, scores = boxes[kept], scores[kept]
    landmarks = decode_landmarks(points[kept], priors[kept], anchors.variances) / scale[:2]
    limit = np.array([letterbox.width, letterbox.height] * 2, np.float32)
    boxes = np.minimum(np.maximum(boxes, 0), limit)
    inside = (boxes[:, :2] < boxes[:, 2:]).all(1)
    if not inside.all():
        boxes, scores, landmarks = boxes[inside], scores[inside], landmarks[inside]
    return Faces(boxes[:max_faces], scores[:max_faces], landmarks[:max_faces])


def decode_boxes(deltas: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """Decode box deltas (N, 4) of priors (N, 4, centre-size) to x1, y1, x2, y2 (N, 4)."""
    centres = priors[:, :2] + deltas[:, :2] * variances[0] * priors[:, 2:]
    halves = priors[:, 2:] * np.exp(deltas[:, 2:] * variances[1]) / 2
    return np.concatenate([centres - halves, centres + halves], 1)


def decode_landmarks(points: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """Decode landmark offsets (N, 10) of priors (N, 4, centre-size) to points (N, 5, 2)."""
    offsets = points.reshape(-1, 5, 2)
    return priors[:, None, :2] + offsets * variances[0] * priors[:, None, 2:]


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
