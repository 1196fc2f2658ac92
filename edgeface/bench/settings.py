"""How a detector looks at pictures: as an app, or as accuracy is measured."""

from __future__ import annotations

from dataclasses import dataclass

from edgeface.faces import DEFAULT_SCORE_THRESHOLD
from edgeface.preprocess import InputSize


@dataclass(frozen=True)
class Settings:
    """An operating point.

    Attributes:
        input_size: None, the long side, or (width, height) in pixels, as ``Detector`` takes it.
        score_threshold: only faces that score above it.
        nms_threshold: of two boxes whose IoU is above it, the better one stays.
        max_faces: keep at most that many; None: all.
    """

    input_size: InputSize = 640
    score_threshold: float = DEFAULT_SCORE_THRESHOLD
    nms_threshold: float = 0.4
    max_faces: int | None = None
