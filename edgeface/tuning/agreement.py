"""Whether a backend finds the faces that the reference finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeface.evaluation.average_precision import box_iou
from edgeface.faces import Faces

# Faces above SURE must be found by the other as well, if only with a score above POSSIBLE.
SURE, POSSIBLE = 0.5, 0.3
# Of many faces a few near the threshold may differ.
_STRAYS = 0.05


@dataclass(frozen=True)
class Tolerance:
    """How much a face may differ from the reference's.

    Attributes:
        iou: least intersection over union of the boxes.
        score: most difference of the scores.
        landmark: most mean distance of the landmarks, as part of the square root of the box's area.
    """

    iou: float
    score: float
    landmark: float


_EXACT = Tolerance(iou=0.97, score=0.02, landmark=0.02)
_LOWERED = Tolerance(iou=0.9, score=0.08, landmark=0.04)
_INT8 = Tolerance(iou=0.75, score=0.2, landmark=0.1)


def tolerance(precision: str, exact: bool) -> Tolerance:
    """Return what an artifact's precision, exact or lowered by the backend, may cost."""
    if precision == "int8":
        return _INT8
    return _EXACT if precision == "fp32" and exact else _LOWERED


def disagreement(found: Sequence[Faces], reference: Sequence[Faces], allowed: Tolerance) -> str:
    """Compare the faces of the same pictures, found above ``POSSIBLE``.

    Returns:
        What differs too much; "" where they agree.
    """
    pairs = list(zip(found, reference, strict=True))
    missed = sum(_strays(theirs, ours, allowed) for ours, theirs in pairs)
    invented = sum(_strays(ours, theirs, allowed) for ours, theirs in pairs)
    sure = sum(int((theirs.scores >= SURE).sum()) for theirs in reference)
    if max(missed, invented) <= _STRAYS * sure:
        return ""
    return f"it differs from the reference: of {sure} faces it misses {missed}, adds {invented}"


def _strays(ours: Faces, theirs: Faces, allowed: Tolerance) -> int:
    """How many sure faces of ours have no like among theirs."""
    sure = ours.scores >= SURE
    boxes = ours.boxes[sure]
    if not len(boxes) or not len(theirs):
        return len(boxes)
    alike = box_iou(boxes, theirs.boxes) >= allowed.iou
    alike &= np.abs(ours.scores[sure][:, None] - theirs.scores) <= allowed.score
    alike &= _landmarks_apart(ours, theirs)[sure] <= allowed.landmark
    return int((~alike.any(axis=1)).sum())


def _landmarks_apart(ours: Faces, theirs: Faces) -> NDArray[np.float64]:
    """Mean distances of the landmarks of N and M faces, in units of ours' size: (N, M)."""
    if ours.landmarks is None or theirs.landmarks is None:
        return np.zeros((len(ours), len(theirs)))
    between = np.linalg.norm(ours.landmarks[:, None] - theirs.landmarks, axis=-1).mean(axis=-1)
    sides = np.maximum(ours.boxes[:, 2:] - ours.boxes[:, :2], 1).prod(axis=1)
    return np.asarray(between / np.sqrt(sides)[:, None], np.float64)
