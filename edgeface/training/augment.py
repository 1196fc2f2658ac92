"""Augmentation: from a labelled picture to a square training sample.

The crop is RetinaFace's (section 4.2: a square of 0.3 to 1 of the short side, flip, photometric
distortion). Data-anchor-sampling is PyramidBox's, by way of ISRN (section 3.1, isrn.txt). Mosaic
and zoom-out turn large labelled faces into tiny ones; the close-up puts one face over most of the
sample, which plain crops of few pixels hardly ever do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FLIPPED_LANDMARKS = [1, 0, 2, 4, 3]
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_NEAREST)
FILL = (104, 117, 123)

Picture = NDArray[np.uint8]


@dataclass
class Sample:
    """A picture and its faces.

    Attributes:
        image: BGR uint8 (H, W, 3).
        boxes: float32 (N, 4) corners in pixels.
        landmarks: float32 (N, 5, 2); NaN where unlabelled.
        ignore: bool (N,); neither face nor background.
    """

    image: Picture
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    ignore: NDArray[np.bool_]


def crop(
    sample: Sample, left: float, top: float, side: float, size: int, interpolation: int
) -> Sample:
    """Cut a square and resize it to ``size`` pixels; what lies outside the picture is filled.

    Faces whose centre is outside are ignored where they show at all, and gone where they do not.
    """
    scale = size / side
    x0, y0 = int(np.floor(max(left, 0))), int(np.floor(max(top, 0)))
    x1 = int(np.ceil(min(left + side, sample.image.shape[1])))
    y1 = int(np.ceil(min(top + side, sample.image.shape[0])))
    image = np.empty((size, size, 3), np.uint8)
    u0, v0 = round((x0 - left) * scale), round((y0 - top) * scale)
    u1, v1 = round((x1 - left) * scale), round((y1 - top) * scale)
    u0, v0, u1, v1 = max(u0, 0), max(v0, 0), min(u1, size), min(v1, size)
    if (u0, v0, u1, v1) != (0, 0, size, size):
        image[:] = FILL
    if u1 > u0 and v1 > v0 and x1 > x0 and y1 > y0:
        cut = sample.image[y0:y1, x0:x1]
        image[v0:v1, u0:u1] = cv2.resize(cut, (u1 - u0, v1 - v0), interpolation=interpolation)
    origin = np.array([left, top], np.float32)
    boxes = (sample.boxes - np.tile(origin, 2)) * scale
    landmarks = (sample.landmarks - origin) * scale
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    centred = ((centres >= 0) & (centres < size)).all(1)
    clipped = boxes.clip(0, size)
    visible = ((clipped[:, 2:] - clipped[:, :2]) > 1).all(1)
    return Sample(
        image,
        clipped[visible].astype(np.float32),
        landmarks[visible].astype(np.float32),
        (sample.ignore | ~centred)[visible],
    )


def random_crop(
    sample: Sample, size: int, sides: tuple[float, float], rng: np.random.Generator
) -> Sample:
    """Square of ``sides`` of the short side that holds a face's centre where there is a face."""
    height, width = sample.image.shape[:2]
    side = rng.uniform(*sides) * min(height, width)
    left, top = rng.uniform(0, 1, 2) * (np.array([width, height]) - side)
    faces = np.flatnonzero(~sample.ignore)
    if len(faces):
        box = sample.boxes[rng.choice(faces)]
        centre = (box[:2] + box[2:]) / 2
        if not ((centre > [left, top]) & (centre < [left + side, top + side])).all():
            left, top = centre - rng.uniform(0, 1, 2) * side
            left = np.clip(left, min(0, width - side), max(0, width - side))
            top = np.clip(top, min(0, height - side), max(0, height - side))
    return crop(sample, float(left), float(top), float(side), size, _interpolation(rng))


def close_up(sample: Sample, face: int, size: int, rng: np.random.Generator) -> Sample:
    """Square that one face fills to 40 to 100 % of its side."""
    box = sample.boxes[face]
    longest = float((box[2:] - box[:2]).max())
    side = longest / rng.uniform(0.4, 1.0)
    slack = side - (box[2:] - box[:2])
    left, top = box[:2] - rng.uniform(0, 1, 2) * slack
    return crop(sample, float(left), float(top), side, size, _interpolation(rng))


def anchor_sampling(
    sample: Sample, face: int, size: int, anchor_sizes: Sequence[float], rng: np.random.Generator
) -> Sample:
    """Data-anchor-sampling (PyramidBox, Tang et al. 2018): one face resized to meet an anchor.

    The anchor is a random one of those up to the next larger than the face's nearest, so that
    large faces become small ones far more often than small ones grow; the face gets 0.5 to 2
    times its size, and lies anywhere within the square.

    Args:
        sample: a picture.
        face: the face, by its number.
        size: side of the square in pixels.
        anchor_sizes: one anchor size in pixels for each pyramid level, rising.
        rng: source of chance.
    """
    box = sample.boxes[face]
    face_size = float(np.sqrt(np.maximum(box[2:] - box[:2], 1).prod()))
    nearest = int(np.abs(np.log(np.asarray(anchor_sizes) / face_size)).argmin())
    chosen = anchor_sizes[int(rng.integers(min(nearest + 1, len(anchor_sizes) - 1) + 1))]
    target = min(rng.uniform(chosen / 2, chosen * 2), size)
    side = size * face_size / target
    left, top = box[:2] - rng.uniform(0, 1, 2) * (side - (box[2:] - box[:2]))
    return crop(sample, float(left), float(top), side, size, _interpolation(rng))


def zoom_out(sample: Sample, size: int, most: float, rng: np.random.Generator) -> Sample:
    """Picture shrunk into a larger canvas of up to ``most`` times its long side."""
    height, width = sample.image.shape[:2]
    side = max(height, width) * rng.uniform(1.0, most)
    left, top = -rng.uniform(0, 1, 2) * (side - np.array([width, height]))
    return crop(sample, float(left), float(top), float(side), size, cv2.INTER_AREA)


def mosaic(samples: Sequence[Sample], size: int, rng: np.random.Generator) -> Sample:
    """Four pictures around a random centre, each covering its tile."""
    centre_x, centre_y = (rng.uniform(0.3, 0.7, 2) * size).astype(int)
    canvas = np.empty((size, size, 3), np.uint8)
    parts = []
    for sample, (u0, v0, u1, v1) in zip(
        samples,
        (
            (0, 0, centre_x, centre_y),
            (centre_x, 0, size, centre_y),
            (0, centre_y, centre_x, size),
            (centre_x, centre_y, size, size),
        ),
        strict=True,
    ):
        tile = max(u1 - u0, v1 - v0)
        height, width = sample.image.shape[:2]
        side = rng.uniform(0.5, 1.0) * min(height, width)
        left, top = rng.uniform(0, 1, 2) * (np.array([width, height]) - side)
        part = crop(sample, float(left), float(top), float(side), tile, _interpolation(rng))
        part = _cut(part, u1 - u0, v1 - v0)
        canvas[v0:v1, u0:u1] = part.image
        offset = np.array([u0, v0], np.float32)
        part.boxes += np.tile(offset, 2)
        part.landmarks += offset
        parts.append(part)
    return Sample(
        canvas,
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.landmarks for part in parts]),
        np.concatenate([part.ignore for part in parts]),
    )


def _cut(sample: Sample, width: int, height: int) -> Sample:
    """Keep the top left width x height pixels; faces that the edge halves are ignored."""
    centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    outside = (centres >= [width, height]).any(1)
    boxes = np.minimum(sample.boxes, np.array([width, height] * 2, np.float32))
    visible = ((boxes[:, 2:] - boxes[:, :2]) > 1).all(1)
    return Sample(
        sample.image[:height, :width],
        boxes[visible],
        sample.landmarks[visible],
        (sample.ignore | outside)[visible],
    )


def flip(sample: Sample) -> Sample:
    """Mirror left and right; left and right landmarks change places."""
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    landmarks = sample.landmarks[:, FLIPPED_LANDMARKS].copy()
    landmarks[..., 0] = width - landmarks[..., 0]
    return Sample(np.asarray(cv2.flip(sample.image, 1), np.uint8), boxes, landmarks, sample.ignore)


def photometric(image: Picture, rng: np.random.Generator) -> Picture:
    """Random brightness, contrast, saturation, hue, sometimes grey, blur or JPEG artefacts."""
    values = np.arange(256, dtype=np.float32)
    contrast, brightness = rng.uniform(0.6, 1.4), rng.uniform(-32, 32)
    gamma = rng.uniform(0.75, 1.33)
    curve = (((values / 255) ** gamma * 255) - 128) * contrast + 128 + brightness
    out: Any = cv2.LUT(image, curve.clip(0, 255).astype(np.uint8))
    chance = rng.random()
    if chance < 0.5:
        hue, saturation, value = cv2.split(cv2.cvtColor(out, cv2.COLOR_BGR2HSV))
        hue = cv2.LUT(hue, ((values + rng.uniform(-12, 12)) % 180).astype(np.uint8))
        stretch = (values * rng.uniform(0.5, 1.5)).clip(0, 255).astype(np.uint8)
        merged = cv2.merge([hue, cv2.LUT(saturation, stretch), value])
        out = cv2.cvtColor(merged, cv2.COLOR_HSV2BGR)
    elif chance < 0.58:
        out = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    chance = rng.random()
    if chance < 0.06:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.5, 1.5))
    elif chance < 0.14:
        encoded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))])[
            1
        ]
        out = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return np.asarray(out, np.uint8)


def _interpolation(rng: np.random.Generator) -> int:
    return INTERPOLATIONS[int(rng.choice(4, p=[0.5, 0.25, 0.15, 0.1]))]
