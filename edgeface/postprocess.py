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

# Landmark offsets, in units of the anchor, that no picture explains.
_ABSURD = 1e30


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

    Anchors whose logit, box or landmarks are not finite are dropped, and the frame is counted.

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
        best = logits.max()
        broken |= bool(np.isnan(best))
        if best <= least:
            continue
        index = np.flatnonzero(logits > least)
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
    order = np.argsort(-logits, kind="stable")[:top_k]
    logits, priors, points = logits[order], priors[order], points[order]
    scale = np.array([letterbox.scale_x, letterbox.scale_y] * 2, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = decode_boxes(deltas[order], priors, anchors.variances) / scale
        scores = 1 / (1 + np.exp(-logits))
    sane = np.isfinite(logits)[:, None], np.isfinite(boxes), np.abs(points) < _ABSURD
    if not all(column.all() for column in sane):
        broken = True
        sound = np.concatenate(sane, 1).all(1)
        boxes, scores, priors, points = boxes[sound], scores[sound], priors[sound], points[sound]
    _count(faults, broken)

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


def _count(faults: Counter[type[Exception]] | None, broken: bool) -> None:
    if faults is not None and broken:
        faults[NumericalError] += 1


def _logit(score: float) -> float:
    if score <= 0:
        return -math.inf
    return math.inf if score >= 1 else math.log(score / (1 - score))
