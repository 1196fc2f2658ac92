"""Parts of a picture that are looked at one by one, and their faces put together again."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeface.devicepicture import DevicePicture
from edgeface.errors import InvalidOptionError
from edgeface.faces import Faces
from edgeface.nms import nms
from edgeface.preprocess import InputSize, Size

# Share of a tile that the next one repeats, so that a face which one cuts is whole in the other;
# faces too large for that are found in the whole picture.
OVERLAP = 0.2
# A box that comes so close to a tile's inner edge, in pixels, was cut by it.
EDGE = 2.0

Pixels: TypeAlias = NDArray[np.uint8] | DevicePicture


class Region(NamedTuple):
    """A rectangle in pixels of the picture."""

    x: int
    y: int
    width: int
    height: int

    def of(self, picture: Pixels) -> Pixels:
        """Return that part of the picture, a view of it."""
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]


def check_region(roi: object) -> Region | None:
    """Return a region of interest in plain ints; None is the whole picture.

    Raises:
        InvalidOptionError: not four integers, or without area.
    """
    if roi is None:
        return None
    numbers = list(roi) if isinstance(roi, (tuple, list, np.ndarray)) else []
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in numbers)
    if len(numbers) != 4 or not whole or min(numbers[:2]) < 0 or min(numbers[2:]) < 1:
        raise InvalidOptionError(
            f"expected roi as (x, y, width, height) in whole pixels, got {roi!r}"
        )
    return Region(*(int(number) for number in numbers))


def tile_size(input_size: InputSize) -> Size:
    """Width and height of tiles that a network frame of that size shows pixel by pixel.

    Raises:
        InvalidOptionError: input_size is None: pictures are looked at in their own size anyway.
    """
    if input_size is None:
        raise InvalidOptionError(
            "expected an input_size with tile=True, got None, which looks at every pixel already; "
            "set input_size to the side of a tile"
        )
    return input_size if isinstance(input_size, tuple) else (input_size, input_size)


def regions(width: int, height: int, roi: Region | None, tile: Size | None) -> list[Region]:
    """Plan which parts of a picture are looked at.

    Args:
        width: pixels of the picture's row.
        height: rows of the picture.
        roi: the part that counts; clipped to the picture.
        tile: width and height of tiles; None: no tiles.

    Returns:
        What counts as a whole first, then the tiles that cover it, if it is larger than one.

    Raises:
        InvalidOptionError: the region of interest lies outside the picture.
    """
    if roi is None:
        whole = Region(0, 0, width, height)
    else:
        wide, high = min(roi.width, width - roi.x), min(roi.height, height - roi.y)
        if wide < 1 or high < 1:
            raise InvalidOptionError(
                f"expected a roi inside the picture of {width}x{height}, got {tuple(roi)}"
            )
        whole = Region(roi.x, roi.y, wide, high)
    if tile is None or (whole.width <= tile[0] and whole.height <= tile[1]):
        return [whole]
    columns, rows = _starts(whole.width, tile[0]), _starts(whole.height, tile[1])
    wide, high = min(tile[0], whole.width), min(tile[1], whole.height)
    return [whole, *(Region(whole.x + x, whole.y + y, wide, high) for y in rows for x in columns)]


def merge(
    found: list[tuple[Region, Faces]],
    *,
    nms_threshold: float,
    min_face: int | None,
    max_faces: int | None,
) -> Faces:
    """Put the faces of regions together, in pixels of the picture.

    Args:
        found: each region with its faces in pixels of the region; the first holds all others.
        nms_threshold: of two boxes whose IoU is above it, the better one stays.
        min_face: leave out boxes with a side below that many pixels; None: none.
        max_faces: keep at most that many of the best; None: all.
    """
    (whole, faces), *tiles = found
    faces = _moved(faces, whole)
    if tiles:
        faces = _joined([faces, *(_moved(_uncut(f, tile, whole), tile) for tile, f in tiles)])
        faces = faces[nms(faces.boxes, faces.scores, nms_threshold)]
    if min_face is not None:
        faces = faces[(faces.boxes[:, 2:] - faces.boxes[:, :2]).min(1) >= min_face]
    return faces if max_faces is None else faces[:max_faces]


def _joined(parts: list[Faces]) -> Faces:
    landmarks = [faces.landmarks for faces in parts if faces.landmarks is not None]
    return Faces(
        np.concatenate([faces.boxes for faces in parts]),
        np.concatenate([faces.scores for faces in parts]),
        np.concatenate(landmarks) if len(landmarks) == len(parts) else None,
    )


def _starts(length: int, side: int) -> list[int]:
    """Where tiles start along one axis: evenly, the last one ending at the end."""
    if length <= side:
        return [0]
    step = side * (1 - OVERLAP)
    count = 1 + int(np.ceil((length - side) / step))
    return [round(start) for start in np.linspace(0, length - side, count).tolist()]


def _uncut(faces: Faces, tile: Region, whole: Region) -> Faces:
    """Leave out faces that touch an edge of the tile which is none of the whole's."""
    x1, y1, x2, y2 = faces.boxes.T
    cut: NDArray[np.bool_] = (x1 < EDGE) & (tile.x > whole.x)
    cut |= (y1 < EDGE) & (tile.y > whole.y)
    cut |= (x2 > tile.width - EDGE) & (tile.x + tile.width < whole.x + whole.width)
    cut |= (y2 > tile.height - EDGE) & (tile.y + tile.height < whole.y + whole.height)
    return faces[~cut]


def _moved(faces: Faces, region: Region) -> Faces:
    if region.x == region.y == 0:
        return faces
    shift = np.array([region.x, region.y], np.float32)
    landmarks = None if faces.landmarks is None else faces.landmarks + shift
    return Faces(faces.boxes + np.tile(shift, 2), faces.scores, landmarks)
