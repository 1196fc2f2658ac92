"""A picture of drawn faces: what is measured where the caller has no pictures of their own.

The shipped model finds every one with a score above 0.9, so backends can be compared on it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
Point = tuple[float, float]

_WIDTH, _HEIGHT = 640, 480
# Centre x and y, height of the face and tilt, in pixels and degrees; the skin's colour, BGR.
_FACES: tuple[tuple[int, int, int, float, Colour], ...] = (
    (130, 170, 170, 3, (130, 165, 215)),
    (330, 120, 110, -6, (95, 130, 190)),
    (500, 150, 130, 4, (60, 85, 130)),
    (90, 400, 60, 0, (140, 175, 225)),
    (220, 390, 80, 8, (100, 140, 200)),
    (350, 360, 90, -4, (70, 100, 150)),
    (470, 380, 50, 0, (130, 165, 215)),
    (570, 390, 70, 5, (120, 150, 205)),
)
_HAIR, _CLOTH, _BROW = (30, 40, 60), (90, 60, 40), (25, 25, 30)
_WHITE, _IRIS, _LIPS, _MOUTH = (235, 235, 235), (40, 30, 25), (70, 70, 150), (40, 40, 80)
_DETAIL = 4


def drawn_faces() -> NDArray[np.uint8]:
    """Draw eight people before coloured light: BGR uint8 (480, 640, 3), always the same."""
    rng = np.random.default_rng(0)
    light = rng.uniform(60, 190, (6, 8, 3)).astype(np.float32)
    scene = cv2.resize(light, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    for x, y, height, tilt, skin in _FACES:
        person, mask = _person(height, tilt, skin)
        half = person.shape[0] // 2
        rows = slice(max(0, y - half), min(_HEIGHT, y + half))
        columns = slice(max(0, x - half), min(_WIDTH, x + half))
        inside = (
            slice(rows.start - y + half, rows.stop - y + half),
            slice(columns.start - x + half, columns.stop - x + half),
        )
        scene[rows, columns] += mask[inside] * (person[inside] - scene[rows, columns])
    scene += np.asarray(rng.normal(0, 3, (_HEIGHT, _WIDTH, 3)), np.float32)
    return np.asarray(np.clip(scene, 0, 255), np.uint8)


def _person(
    height: int, tilt: float, skin: Colour
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw one, lit from the left: float32 (S, S, 3) and what of it is opaque (S, S, 1)."""
    side = round(1.2 * height) * 2
    unit = height * _DETAIL
    canvas = np.zeros((side * _DETAIL, side * _DETAIL, 4), np.float32)

    def at(point: Point) -> tuple[int, int]:
        return tuple(round(canvas.shape[0] / 2 + part * unit) for part in point)  # type: ignore[return-value]

    def ellipse(centre: Point, axes: Point, colour: Colour) -> None:
        sizes = [max(1, round(axis * unit)) for axis in axes]
        cv2.ellipse(canvas, at(centre), sizes, 0, 0, 360, (*colour, 1), -1, cv2.LINE_AA)

    def line(points: list[Point], colour: Colour, width: float) -> None:
        corners = [np.array([at(point) for point in points], np.int32)]
        cv2.polylines(
            canvas, corners, False, (*colour, 1), max(1, round(width * unit)), cv2.LINE_AA
        )

    dark, shade, lit = (
        (skin[0] * part, skin[1] * part, skin[2] * part) for part in (0.62, 0.82, 1.12)
    )
    ellipse((0, -0.12), (0.47, 0.55), _HAIR)
    ellipse((0, 0.55), (0.2, 0.35), shade)
    ellipse((0, 1), (0.75, 0.42), _CLOTH)
    ellipse((0, 0.02), (0.37, 0.5), skin)
    for sign in (-1, 1):
        ellipse((sign * 0.38, 0.03), (0.05, 0.1), shade)
        ellipse((sign * 0.16, -0.05), (0.1, 0.055), shade)
        ellipse((sign * 0.16, -0.05), (0.085, 0.036), _WHITE)
        ellipse((sign * 0.16, -0.05), (0.036, 0.036), _IRIS)
        line([(sign * 0.06, -0.13), (sign * 0.16, -0.15), (sign * 0.26, -0.12)], _BROW, 0.035)
        ellipse((sign * 0.05, 0.155), (0.022, 0.014), dark)
    line([(-0.04, -0.02), (-0.06, 0.14)], shade, 0.02)
    ellipse((0, 0.13), (0.06, 0.035), lit)
    ellipse((0, 0.28), (0.13, 0.045), _LIPS)
    line([(-0.13, 0.275), (0.13, 0.275)], _MOUTH, 0.014)

    turn = cv2.getRotationMatrix2D((canvas.shape[0] / 2, canvas.shape[0] / 2), tilt, 1)
    soft = cv2.warpAffine(cv2.GaussianBlur(canvas, (0, 0), 0.02 * unit), turn, canvas.shape[:2])
    small = np.asarray(cv2.resize(soft, (side, side), interpolation=cv2.INTER_AREA), np.float32)
    across = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    light = 1 - 0.55 * across[None, :, None] - 0.25 * across[:, None, None]
    mask = np.clip(small[..., 3:], 0, 1)
    # The blurred colours hold as much of the empty canvas as the mask lacks.
    colours = small[..., :3] / np.maximum(mask, 1e-3)
    return (colours * light).astype(np.float32), mask.astype(np.float32)
