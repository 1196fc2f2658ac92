"""Normalised mean error (NME) of the five landmarks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DatasetError
from edgeface.evaluation.average_precision import MIN_IOU, box_iou
from edgeface.evaluation.report import LandmarkReport
from edgeface.evaluation.run import Predict
from edgeface.faces import Faces
from edgeface.imageio import read_image


class LabelledImage(Protocol):
    """A picture with landmarks, such as ``edgeface.training.labels.Annotation``.

    ``boxes`` is (N, 4) x1, y1, x2, y2 and ``landmarks`` (N, 5, 2), pixels of the picture, NaN
    where a face has none.
    """

    @property
    def image(self) -> Path:
        """The picture."""
        ...

    @property
    def boxes(self) -> NDArray[np.float32]:
        """Boxes of the labelled faces."""
        ...

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """Landmarks of the labelled faces."""
        ...


def evaluate_landmarks(predict: Predict, images: Iterable[LabelledImage]) -> LandmarkReport:
    """Measure the landmarks of the detection that overlaps each labelled face most.

    Args:
        predict: takes BGR uint8 (H, W, 3), gives Faces in pixels of that picture.
        images: labelled pictures; faces and pictures without landmarks are left out.

    Raises:
        DatasetError: no face has landmarks, or the detections have none.
        InvalidImageError: a picture is unreadable.
    """
    errors = [
        landmark_errors(predict(read_image(image.image)), image.boxes, image.landmarks)
        for image in images
        if not np.isnan(image.landmarks).all()
    ]
    if not errors:
        raise DatasetError(
            "expected faces with five landmarks, got none; use labels with landmarks, such as "
            "RetinaFace's label.txt"
        )
    every = np.concatenate(errors)
    error = every[~np.isnan(every)]
    return LandmarkReport(
        images=len(errors),
        faces=len(every),
        found=len(error) / len(every),
        mean=float(np.mean(error)) if len(error) else float("nan"),
        median=float(np.median(error)) if len(error) else float("nan"),
    )


def landmark_errors(
    faces: Faces, boxes: NDArray[np.float32], landmarks: NDArray[np.float32]
) -> NDArray[np.float64]:
    """NME of each face with landmarks, NaN where no detection reaches an IoU of 0.5.

    Args:
        faces: the detections.
        boxes: (N, 4) labelled boxes, x1, y1, x2, y2.
        landmarks: (N, 5, 2) labelled landmarks, NaN where a face has none.
    """
    labelled = ~np.isnan(landmarks).any(axis=(1, 2))
    boxes, landmarks = boxes[labelled], landmarks[labelled]
    errors = np.full(len(boxes), np.nan)
    if not len(faces):
        return errors
    if faces.landmarks is None:
        raise DatasetError(
            "expected detections with landmarks, got none; use a model that has them"
        )
    iou = box_iou(boxes, faces.boxes)
    best = iou.argmax(axis=1)
    distance = np.linalg.norm(faces.landmarks[best] - landmarks, axis=2).mean(axis=1)
    side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    hit = iou.max(axis=1) >= MIN_IOU
    errors[hit] = distance[hit] / side[hit]
    return errors
