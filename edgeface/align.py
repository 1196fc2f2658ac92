"""Faces turned and scaled to the template that ArcFace-like recognisers are trained on."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidOptionError
from edgeface.imageio import Picture, read_image

TEMPLATE_SIZE = 112
# Five points in a 112 x 112 crop, as used by ArcFace (Deng et al. 2019) and its successors.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def align_faces(
    image: Picture, landmarks: NDArray[np.float32], size: int = 112
) -> NDArray[np.uint8]:
    """Cut out one crop per face.

    Args:
        image: the picture, as ``read_image`` takes it.
        landmarks: (N, 5, 2) pixels: eyes, nose, mouth corners, left to right as seen.
        size: pixels of a side of each crop.

    Returns:
        uint8 (N, size, size, 3), BGR; black outside the picture.

    Raises:
        InvalidImageError: the image cannot be read.
        InvalidOptionError: size is not a positive integer, or a face's points coincide.
    """
    if not isinstance(size, int) or size < 1:
        raise InvalidOptionError(f"expected a positive integer as size, got {size!r}")
    picture = read_image(image)
    crops = np.empty((len(landmarks), size, size, 3), np.uint8)
    for crop, points in zip(crops, landmarks, strict=True):
        matrix = similarity(points, TEMPLATE * (size / TEMPLATE_SIZE))
        cv2.warpAffine(picture, matrix, (size, size), dst=crop, flags=cv2.INTER_LINEAR)
    return crops


def similarity(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """Least-squares similarity transform without reflection (Umeyama 1991).

    In the plane it is one complex factor: rotation and scale.

    Args:
        source: (N, 2) points.
        target: (N, 2) points that they should fall on.

    Returns:
        float64 (2, 3): ``target ~ source @ matrix[:, :2].T + matrix[:, 2]``.

    Raises:
        InvalidOptionError: the source points coincide.
    """
    z, w = _complex(source), _complex(target)
    spread = z - z.mean()
    energy = float(np.vdot(spread, spread).real)
    if energy <= 0:
        raise InvalidOptionError(
            f"expected landmarks that differ, got five times {source[0].tolist()}; drop that face"
        )
    factor = np.vdot(spread, w - w.mean()) / energy
    shift = w.mean() - factor * z.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def _complex(points: NDArray[Any]) -> NDArray[np.complex128]:
    values: NDArray[np.complex128] = points[:, 0].astype(np.float64) + 1j * points[:, 1]
    return values
