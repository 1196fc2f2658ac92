"""Run a detector over WIDER FACE's pictures and report how good it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DatasetError
from edgeface.evaluation.average_precision import Detections, wider_average_precision
from edgeface.evaluation.matching import match, mean_average_precision, recall
from edgeface.evaluation.report import HeightRecall, Report
from edgeface.evaluation.wider import SUBSETS, WiderImage
from edgeface.faces import Faces
from edgeface.imageio import read_image

Predict = Callable[[NDArray[np.uint8]], Faces]

SCORE_THRESHOLD = 0.02
NMS_THRESHOLD = 0.4
MAX_FACES = 750
HEIGHTS = (0, 16, 32, 64, 128, np.inf)
RECALL_SCORES = (0.02, 0.5)


def evaluate(predict: Predict, dataset: Sequence[WiderImage]) -> Report:
    """Detect faces in every picture and score them against the ground truth.

    Args:
        predict: takes BGR uint8 (H, W, 3), gives Faces in pixels of that picture. It shrinks the
            picture where the operating point asks for it. Comparable figures need scores down to
            SCORE_THRESHOLD, NMS at NMS_THRESHOLD and up to MAX_FACES faces.
        dataset: pictures of ``load_wider``.

    Raises:
        DatasetError: the dataset is empty.
        InvalidImageError: a picture is unreadable.
    """
    return score(detect(predict, dataset), dataset)


def detect(predict: Predict, dataset: Iterable[WiderImage]) -> list[Detections]:
    """Detect faces in every picture; arguments and errors as in ``evaluate``."""
    faces = (predict(read_image(image.path)) for image in dataset)
    return [Detections.sort(found.boxes, found.scores) for found in faces]


def score(detections: Sequence[Detections], dataset: Sequence[WiderImage]) -> Report:
    """Score detections, one entry per picture of the dataset.

    Raises:
        DatasetError: the dataset is empty.
    """
    if not dataset:
        raise DatasetError("expected a dataset of at least one picture, got none; see load_wider")
    faces = [image.faces for image in dataset]
    keep = {subset: [image.keep[subset] for image in dataset] for subset in SUBSETS}
    average_precision = wider_average_precision(detections, faces, keep)
    matches = match(detections, faces, keep["hard"])
    rows = tuple(
        HeightRecall(
            low,
            high,
            int(np.sum((matches.heights >= low) & (matches.heights < high))),
            *(recall(matches, threshold, low, high) for threshold in RECALL_SCORES),
        )
        for low, high in pairwise(HEIGHTS)
    )
    return Report(
        images=len(dataset),
        faces=len(matches.heights),
        **average_precision,
        map=mean_average_precision(matches),
        recall_by_height=rows,
    )
