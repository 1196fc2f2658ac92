"""How good a face is for recognition, and the best picture of each track."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.align import TEMPLATE_SIZE
from edgeface.errors import InvalidOptionError
from edgeface.faces import Face, Faces
from edgeface.imageio import Picture, read_image

# The five points of an average head: right, down and away from the camera, in pixels of a crop of
# 112 x 112. Factorised (Tomasi and Kanade 1992) from labelled photographs and their mirror images,
# and turned so that the median portrait has pitch 0.
HEAD = np.array(
    [
        [-17.6, -18.3, 0.0],
        [17.6, -18.3, 0.0],
        [0.0, 0.8, -15.7],
        [-15.3, 17.8, 3.5],
        [15.3, 17.8, 3.5],
    ]
)
# Sharpness of a face that counts as half sharp.
HALF_SHARP = 100.0
CROP_MARGIN = 0.3


@dataclass(frozen=True, eq=False)
class Quality:
    """Columns of N faces, in their order.

    Attributes:
        size: float64 (N,), side in pixels of a square with the box's area.
        sharpness: float64 (N,), variance of the Laplacian of the grey aligned 112 x 112 crop.
        yaw: float64 (N,), degrees; positive where the face looks to the right of the picture.
        pitch: float64 (N,), degrees; positive where it looks up.
        roll: float64 (N,), degrees; positive where the head leans clockwise in the picture.
        overall: float64 (N,), 0..1: geometric mean of the score, of the size up to 112 pixels, of
            the sharpness and of how far the face looks into the camera.
    """

    size: NDArray[np.float64]
    sharpness: NDArray[np.float64]
    yaw: NDArray[np.float64]
    pitch: NDArray[np.float64]
    roll: NDArray[np.float64]
    overall: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shot:
    """The best picture of a track.

    Attributes:
        face: the face in its picture.
        timestamp: seconds, as ``BestShots.update`` was told.
        quality: its ``Quality.overall``.
        crop: BGR uint8 (H, W, 3), the box and a margin around it.
        aligned: BGR uint8 (112, 112, 3), for recognition.
    """

    face: Face
    timestamp: float
    quality: float
    crop: NDArray[np.uint8]
    aligned: NDArray[np.uint8]


class BestShots(Mapping[int, Shot]):
    """Keeps the best picture of each track: ``shots[track_id]``.

    Args:
        max_tracks: tracks that are remembered; beyond, those that were not seen for longest go.

    Raises:
        InvalidOptionError: max_tracks is not a positive integer.
    """

    def __init__(self, max_tracks: int = 100) -> None:
        if isinstance(max_tracks, bool) or not isinstance(max_tracks, int) or max_tracks < 1:
            raise InvalidOptionError(f"expected max_tracks of at least 1, got {max_tracks!r}")
        self._max_tracks = max_tracks
        self._shots: OrderedDict[int, Shot] = OrderedDict()

    def __getitem__(self, track_id: int) -> Shot:
        return self._shots[track_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._shots)

    def __len__(self) -> int:
        return len(self._shots)

    def update(self, image: Picture, faces: Faces, timestamp: float) -> None:
        """Look at the tracked faces of one frame.

        Args:
            image: the frame; what is kept of it is copied.
            faces: as ``Tracker.update`` returns them.
            timestamp: seconds, kept with the shot.

        Raises:
            InvalidImageError: the image cannot be read.
            InvalidOptionError: the faces have no track_ids or no landmarks.
        """
        if faces.track_ids is None:
            raise InvalidOptionError("expected faces with track_ids; pass them through a Tracker")
        picture = read_image(image)
        crops = faces.crop_aligned(picture, TEMPLATE_SIZE)
        overall = _grade(faces, crops).overall.tolist()
        tracks = faces.track_ids.tolist()
        for face, aligned, quality, track in zip(faces, crops, overall, tracks, strict=True):
            best = self._shots.get(track)
            if best is None or quality > best.quality:
                crop = _crop(picture, face.box)
                self._shots[track] = Shot(face, timestamp, quality, crop, aligned.copy())
            self._shots.move_to_end(track)
        while len(self._shots) > self._max_tracks:
            self._shots.popitem(last=False)

    def pop(self, track_id: int) -> Shot:
        """Return a track's shot and forget it.

        Raises:
            KeyError: there is none.
        """
        return self._shots.pop(track_id)


def measure(image: Picture, faces: Faces) -> Quality:
    """Measure how good faces are for recognition.

    Args:
        image: the picture that the faces are from.
        faces: with landmarks.

    Raises:
        InvalidImageError: the image cannot be read.
        InvalidOptionError: the faces have no landmarks, or a face's points coincide.
    """
    return _grade(faces, faces.crop_aligned(image, TEMPLATE_SIZE))


def pose(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Estimate how heads are turned, from five points and a head of average proportions.

    The head is fitted by scaled orthography, that is seen from afar; single angles can be off by
    ten degrees, as heads differ.

    Args:
        landmarks: (N, 5, 2) pixels, in the order of ``LANDMARK_NAMES``.

    Returns:
        float64 (3, N): yaw, pitch and roll in degrees, signs as in ``Quality``. The head rolls
        about its own axis first, then pitches, then yaws.
    """
    head = HEAD - HEAD.mean(0)
    points = landmarks - landmarks.mean(1, keepdims=True, dtype=np.float64)
    affine = np.swapaxes(points, 1, 2) @ head @ np.linalg.inv(head.T @ head)
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    across, down = rows[:, 0], rows[:, 1]
    depth = np.cross(across, down)
    yaw = np.arctan2(-across[:, 2], depth[:, 2])
    pitch = np.arcsin(np.clip(down[:, 2], -1, 1))
    roll = np.arctan2(down[:, 0], down[:, 1])
    return np.stack([np.degrees(angle) for angle in (yaw, pitch, roll)])


def _grade(faces: Faces, crops: NDArray[np.uint8]) -> Quality:
    """Measure faces, given their aligned crops."""
    sides = faces.boxes[:, 2:].astype(np.float64) - faces.boxes[:, :2]
    size = np.sqrt(sides.prod(1))
    sharpness = np.array([_sharpness(crop) for crop in crops], np.float64)
    assert faces.landmarks is not None  # or there would be no crops
    yaw, pitch, roll = pose(faces.landmarks)
    near = np.minimum(size / TEMPLATE_SIZE, 1)
    sharp = sharpness / (sharpness + HALF_SHARP)
    frontal = np.maximum(np.cos(np.radians(yaw)) * np.cos(np.radians(pitch)), 0)
    overall = (faces.scores * near * sharp * frontal) ** 0.25
    return Quality(size, sharpness, yaw, pitch, roll, overall)


def _sharpness(crop: NDArray[np.uint8]) -> float:
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def _crop(picture: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    margin = CROP_MARGIN * (box[2:] - box[:2])
    x1, y1 = np.clip(box[:2] - margin, 0, (width - 1, height - 1)).astype(int)
    x2, y2 = np.clip(box[2:] + margin, (x1 + 1, y1 + 1), (width, height)).astype(int)
    return picture[y1:y2, x1:x2].copy()
