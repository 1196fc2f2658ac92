"""Faces drawn on a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.imageio import Picture, read_image

if TYPE_CHECKING:
    from edgeface.faces import Face, Faces

BOX_COLOR = (80, 220, 60)
TEXT_COLOR = (20, 20, 20)
LANDMARK_COLORS = ((255, 160, 40), (255, 160, 40), (60, 200, 255), (200, 80, 255), (200, 80, 255))
MAX_PIXEL = 32_000
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_faces(image: Picture, faces: Faces, *, scores: bool = True) -> NDArray[np.uint8]:
    """Draw boxes, landmarks and scores; lines and text scale with the picture.

    Args:
        image: the picture, as ``read_image`` takes it; it stays as it is.
        faces: what to draw.
        scores: write the score, and the track's number where there is one. Faces narrower than
            their text go without it.

    Returns:
        uint8 (H, W, 3), BGR: a new array.

    Raises:
        InvalidImageError: the image cannot be read.
    """
    canvas = np.array(read_image(image), order="C")
    unit = max(canvas.shape[:2]) / 640
    for face in list(faces)[::-1]:
        _draw_face(canvas, face, unit)
        if scores:
            _draw_label(canvas, face, unit)
    return canvas


def _draw_face(canvas: NDArray[np.uint8], face: Face, unit: float) -> None:
    x1, y1, x2, y2 = _pixels(face.box)
    side = min(x2 - x1, y2 - y1)
    thickness = max(1, round(min(2 * unit, side / 20)))
    cv2.rectangle(canvas, (x1, y1), (x2, y2), BOX_COLOR, thickness)
    if face.landmarks is not None:
        radius = max(1, round(min(3 * unit, side / 25)))
        for point, color in zip(_pixels(face.landmarks), LANDMARK_COLORS, strict=True):
            cv2.circle(canvas, point, radius, color, -1, cv2.LINE_AA)


def _draw_label(canvas: NDArray[np.uint8], face: Face, unit: float) -> None:
    track = "" if face.track_id is None else f"#{face.track_id} "
    text = f"{track}{face.score:.2f}"
    scale, weight = 0.5 * unit, max(1, round(unit))
    (width, height), _ = cv2.getTextSize(text, FONT, scale, weight)
    x1, y1, x2, _ = _pixels(face.box)
    margin = max(1, round(3 * unit))
    if width + 2 * margin > x2 - x1:
        return
    band = height + 2 * margin
    top = y1 - band if y1 >= band else y1
    cv2.rectangle(canvas, (x1, top), (x1 + width + 2 * margin, top + band), BOX_COLOR, -1)
    origin = (x1 + margin, top + band - margin)
    cv2.putText(canvas, text, origin, FONT, scale, TEXT_COLOR, weight, cv2.LINE_AA)


def _pixels(values: NDArray[np.float32]) -> list[Any]:
    pixels: list[Any] = np.clip(values, -MAX_PIXEL, MAX_PIXEL).round().astype(int).tolist()
    return pixels
