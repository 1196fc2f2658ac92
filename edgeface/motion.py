"""How boxes move between detections: a Kalman filter per coordinate, all tracks at once.

Centres have a velocity that fades (a head that was moving soon stops), sizes drift. All noise is in
units of the face, so that near and far faces are treated alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Moving = TypeVar("Moving", bound="Motion")

# Per coordinate: centre x, centre y, width, height.
ACCELERATION = np.array([2.0, 2.0, 0.0, 0.0])  # face sizes / s^1.5
DRIFT = np.array([0.0, 0.0, 0.3, 0.3])  # face sizes / s^0.5
FIRST_SPEED = np.array([1.0, 1.0, 0.0, 0.0])  # face sizes / s
MEASUREMENT = 0.05  # face sizes
FADE = 0.25  # s


@dataclass
class Motion:
    """State of T boxes.

    Attributes:
        place: (T, 4) centre x, centre y, width and height in pixels.
        speed: (T, 4) pixels per second.
        spread: (T, 3, 4) variance of place, covariance, variance of speed.
    """

    place: Floats
    speed: Floats
    spread: Floats

    def after(self: Moving, seconds: float) -> Moving:
        """Predict the state some seconds later."""
        rest = math.exp(-seconds / FADE)
        reach = FADE * (1 - rest)
        scale = face_size(self.place)
        noise = (ACCELERATION * scale) ** 2
        place_var, shared, speed_var = np.moveaxis(self.spread, 1, 0)
        spread = np.stack(
            [
                place_var
                + 2 * reach * shared
                + reach**2 * speed_var
                + noise * seconds**3 / 3
                + (DRIFT * scale) ** 2 * seconds,
                rest * (shared + reach * speed_var) + noise * seconds**2 / 2,
                rest**2 * speed_var + noise * seconds,
            ],
            axis=1,
        )
        place = self.place + reach * self.speed
        return replace(self, place=place, speed=rest * self.speed, spread=spread)

    def corrected(self: Moving, boxes: NDArray[np.float32]) -> Moving:
        """Take in a measured box (T, 4), x1, y1, x2, y2, for each track."""
        measured = centre_size(boxes)
        place_var, shared, speed_var = np.moveaxis(self.spread, 1, 0)
        total = place_var + (MEASUREMENT * face_size(measured)) ** 2
        place_gain, speed_gain = place_var / total, shared / total
        wrong = measured - self.place
        spread = np.stack(
            [
                (1 - place_gain) * place_var,
                (1 - place_gain) * shared,
                speed_var - speed_gain * shared,
            ],
            axis=1,
        )
        place = self.place + place_gain * wrong
        return replace(self, place=place, speed=self.speed + speed_gain * wrong, spread=spread)

    def boxes(self) -> NDArray[np.float32]:
        """Return (T, 4) x1, y1, x2, y2."""
        half = self.place[:, 2:] / 2
        corners = np.concatenate([self.place[:, :2] - half, self.place[:, :2] + half], 1)
        return corners.astype(np.float32)


def first_spread(place: Floats) -> Floats:
    """Variances (T, 3, 4) of boxes that were measured once, for ``Motion.spread``."""
    scale = face_size(place)
    spread = np.zeros((len(place), 3, 4))
    spread[:, 0] = (MEASUREMENT * scale) ** 2
    spread[:, 2] = (FIRST_SPEED * scale) ** 2
    return spread


def centre_size(boxes: NDArray[np.float32]) -> Floats:
    """Turn boxes (T, 4), x1, y1, x2, y2, into centre x, centre y, width, height."""
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return np.concatenate([(low + high) / 2, high - low], 1)


def face_size(place: Floats) -> Floats:
    """Size (T, 1) of each face in pixels, at least one."""
    scale: Floats = np.maximum(np.sqrt(place[:, 2:].prod(1, keepdims=True)), 1)
    return scale
