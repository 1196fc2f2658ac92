"""Faces made unrecognisable, in pictures and in videos."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidOptionError
from edgeface.faces import Faces
from edgeface.imageio import Picture, read_image
from edgeface.tracking import Tracker

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]

KINDS = ("gaussian", "pixelate", "solid")
SOLID_COLOR = (0, 0, 0)
# A blurred face keeps about that many values along its longer side, however large it is.
CELLS = 6
# Gaussian blur works on a face shrunk to that many pixels.
BLUR_SIDE = 48
# Box sizes, per second and at most, by which a face may be off from where it is thought to be.
SPREAD, MAX_SPREAD = 2.0, 0.5


def blur_faces(
    image: Picture, faces: Faces, *, kind: str = "gaussian", margin: float = 0.2
) -> Image:
    """Blur faces; the strength grows with the face, so that the same little is left of each.

    Args:
        image: the picture, as ``read_image`` takes it; it stays as it is.
        faces: what to blur, with or without landmarks.
        kind: "gaussian", "pixelate" or "solid". The first two leave about 6 x 6 values of a face:
            too little to see who it is, but enough to compare with photographs of a few suspects.
            "solid", black, leaves nothing.
        margin: widening of each side of a box, in box sizes, to cover hair and ears.

    Returns:
        uint8 (H, W, 3), BGR: a new array.

    Raises:
        InvalidImageError: the image cannot be read.
        InvalidOptionError: unknown kind or negative margin.
    """
    check_blur(kind, margin)
    canvas = np.array(read_image(image), order="C")
    _blur_boxes(canvas, _widened(faces.boxes, margin), kind)
    return canvas


def blur_video(
    frames: Iterable[Image],
    detect: Callable[[Image], Faces],
    *,
    fps: float,
    kind: str = "gaussian",
    margin: float = 0.2,
    hold: float = 1.0,
    lookahead: int = 5,
) -> Iterator[Image]:
    """Blur the faces of a video, also where the detector misses them for a while.

    A face that is no longer found stays blurred for a while, where it should be; a face that
    appears is blurred in the frames before as well. Both regions grow with the time that they
    bridge, up to twice the face.

    Args:
        frames: BGR uint8 (H, W, 3), in order; they stay as they are.
        detect: the detector; a low ``score_threshold`` misses less.
        fps: frames a second.
        kind: see ``blur_faces``.
        margin: see ``blur_faces``.
        hold: seconds that a face which is no longer found stays blurred.
        lookahead: frames before its first detection in which a face is blurred, and by which the
            output lags behind the input; that many frames are in memory.

    Yields:
        uint8 (H, W, 3), BGR: each frame, a new array.

    Raises:
        InvalidOptionError: an option has a value that it does not accept.
    """
    check_blur(kind, margin)
    if not fps > 0:
        raise InvalidOptionError(f"expected fps above 0, got {fps!r}")
    tracker = Tracker(new_score=0.0, min_hits=1, hold=hold, max_lost=max(hold, 1.0))
    waiting: deque[tuple[Image, list[Boxes]]] = deque()
    newest = 0
    for number, image in enumerate(frames):
        seconds = number / fps
        faces = tracker.update(detect(image), seconds)
        seen = tracker.last_seen()
        ids = np.empty(0, np.int64) if faces.track_ids is None else faces.track_ids
        ages = np.array([seconds - seen[track] for track in ids.tolist()])
        fresh = faces.boxes[ids > newest]
        newest = max(newest, *ids.tolist(), 0)
        for frames_before, (_, boxes) in enumerate(reversed(waiting), 1):
            boxes.append(_widened(fresh, margin + _spread(frames_before / fps)))
        waiting.append((image, [_widened(faces.boxes, margin + _spread(ages[:, None]))]))
        if len(waiting) > lookahead:
            yield _finished(*waiting.popleft(), kind)
    while waiting:
        yield _finished(*waiting.popleft(), kind)


def check_blur(kind: str, margin: float) -> None:
    """Refuse options that ``blur_faces`` does not accept.

    Raises:
        InvalidOptionError: unknown kind or negative margin.
    """
    if kind not in KINDS:
        raise InvalidOptionError(f"expected kind {', '.join(map(repr, KINDS))}, got {kind!r}")
    if not isinstance(margin, (int, float, np.number)) or not 0 <= margin < np.inf:
        raise InvalidOptionError(f"expected a margin of at least 0, got {margin!r}")


def _finished(image: Image, boxes: list[Boxes], kind: str) -> Image:
    canvas = np.array(image, order="C")
    _blur_boxes(canvas, np.concatenate(boxes), kind)
    return canvas


def _spread(seconds: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(SPREAD * np.asarray(seconds), MAX_SPREAD)


def _widened(boxes: Boxes, margin: float | NDArray[np.float64]) -> Boxes:
    sides = boxes[:, 2:] - boxes[:, :2]
    wide = np.concatenate([boxes[:, :2] - margin * sides, boxes[:, 2:] + margin * sides], 1)
    return wide.astype(np.float32)


def _blur_boxes(canvas: Image, boxes: Boxes, kind: str) -> None:
    height, width = canvas.shape[:2]
    low = np.floor(np.clip(boxes[:, :2], 0, (width, height))).astype(int)
    high = np.ceil(np.clip(boxes[:, 2:], 0, (width, height))).astype(int)
    for (x1, y1), (x2, y2) in zip(low.tolist(), high.tolist(), strict=True):
        if x1 < x2 and y1 < y2:
            region = canvas[y1:y2, x1:x2]
            region[...] = _BLURS[kind](region)


def _gaussian(region: Image) -> Image:
    small = _shrunk(region, BLUR_SIDE)
    sigma = max(small.shape[:2]) / CELLS
    soft = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return _enlarged(np.asarray(soft, np.uint8), region, cv2.INTER_LINEAR)


def _pixelate(region: Image) -> Image:
    return _enlarged(_shrunk(region, CELLS), region, cv2.INTER_NEAREST)


def _solid(region: Image) -> Image:
    return np.broadcast_to(np.array(SOLID_COLOR, np.uint8), region.shape)


def _shrunk(region: Image, longest: int) -> Image:
    """Average into cells of at least 2 x 2 pixels, ``longest`` along the longer side at most."""
    height, width = region.shape[:2]
    cell = max(2.0, max(height, width) / longest)
    size = (max(1, round(width / cell)), max(1, round(height / cell)))
    return np.asarray(cv2.resize(region, size, interpolation=cv2.INTER_AREA), np.uint8)


def _enlarged(small: Image, region: Image, interpolation: int) -> Image:
    size = (region.shape[1], region.shape[0])
    return np.asarray(cv2.resize(small, size, interpolation=interpolation), np.uint8)


_BLURS = {"gaussian": _gaussian, "pixelate": _pixelate, "solid": _solid}
