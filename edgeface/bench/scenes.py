"""The pictures that are timed: of any size, with any number of faces."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.detector import Detector
from edgeface.errors import InvalidImageError
from edgeface.imageio import read_image

Image = NDArray[np.uint8]
Size = tuple[int, int]

MARGIN = 0.5
FACE_IN_CELL = 0.75


def load_picture(path: Path | None) -> tuple[Image, str]:
    """Load the picture to look at.

    Args:
        path: a picture; None: scikit-image's astronaut, or drawn faces where scikit-image is not
            installed.

    Returns:
        BGR uint8 (H, W, 3), and what it is, in words.

    Raises:
        InvalidImageError: it cannot be read.
    """
    if path is not None:
        return read_image(path), path.name
    try:
        from skimage.data import astronaut
    except ImportError:
        from edgeface.tuning.drawing import drawn_faces

        return drawn_faces(), "eight drawn faces"
    return np.ascontiguousarray(astronaut()[..., ::-1]), "scikit-image's astronaut"


def fit(image: Image, size: Size) -> Image:
    """Shrink or enlarge a picture into width x height, black where it does not fill that."""
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    content = _resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    canvas[: content.shape[0], : content.shape[1]] = content
    return canvas


def cut_face(image: Image, detector: Detector) -> Image:
    """Cut the best face out of a picture, as a square with a margin.

    Raises:
        InvalidImageError: no face is found in it.
    """
    faces = detector(image)
    if not len(faces):
        raise InvalidImageError(
            "expected a picture with a face to make crowds of, got one without; name one with "
            "--image"
        )
    x1, y1, x2, y2 = faces.boxes[0]
    half = (0.5 + MARGIN) * max(x2 - x1, y2 - y1) / 2
    left, right = (round(float((x1 + x2) / 2 + side * half)) for side in (-1, 1))
    top, bottom = (round(float((y1 + y2) / 2 + side * half)) for side in (-1, 1))
    return np.ascontiguousarray(image[max(0, top) : bottom, max(0, left) : right])


def crowd(face: Image, size: Size, faces: int, cells: int) -> Image:
    """Set a number of faces into a grid of that many cells or more, on grey.

    Args:
        face: BGR uint8, a face with some margin.
        size: (width, height) of the picture in pixels.
        faces: how many, at most ``cells``.
        cells: places in the grid, so that faces keep their size whatever their number.

    Returns:
        BGR uint8 (height, width, 3).
    """
    width, height = size
    columns = math.ceil(math.sqrt(cells * width / height))
    rows = math.ceil(cells / columns)
    side = max(1, int(FACE_IN_CELL * min(width / columns, height / rows)))
    tile = _resize(face, (side, side))
    picture = np.full((height, width, 3), 128, np.uint8)
    for place in range(faces):
        row, column = divmod(place, columns)
        top, left = row * height // rows, column * width // columns
        picture[top : top + side, left : left + side] = tile
    return picture


def _resize(image: Image, size: Size) -> Image:
    shrinks = size[0] < image.shape[1]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=kind), np.uint8)
