"""Run a detector over WIDER FACE's pictures and report how good it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DatasetError
from edgeface.evaluation.average_precision import Detections, wider_average_precision
from edgeface.evaluation.matching import match, mean_average_precision, recall
from edgeface.evaluation.wider import SUBSETS, WiderImage
from edgeface.faces import Faces
from edgeface.imageio import read_image

Predict = Callable[[NDArray[np.uint8]], Faces]

SCORE_THRESHOLD = 0.02
NMS_THRESHOLD = 0.4
MAX_FACES = 750
HEIGHTS = (0, 16, 32, 64, 128, np.inf)
RECALL_SCORES = (0.02, 0.5)


@dataclass(frozen=True)
class HeightRecall:
    """Recall at IoU 0.5 of the hard subset's faces of low <= height < high pixels.

    Attributes:
        low: least height in pixels of the original picture.
        high: height that is too large; infinite for the last row.
        faces: how many there are.
        at_002: recall of detections with a score of 0.02 or more.
        at_050: recall of detections with a score of 0.5 or more.
    """

    low: float
    high: float
    faces: int
    at_002: float
    at_050: float

    @property
    def label(self) -> str:
        """The heights in words: "<16", "16–32", "≥128"."""
        if self.low == 0:
            return f"<{self.high:.0f}"
        return f"≥{self.low:.0f}" if np.isinf(self.high) else f"{self.low:.0f}–{self.high:.0f}"


@dataclass(frozen=True)
class Report:
    """Accuracy on WIDER FACE; fractions of one, NaN where a subset has no face.

    Attributes:
        images: pictures evaluated.
        faces: faces of the hard subset in them.
        easy: official average precision of the easy subset.
        medium: of the medium subset.
        hard: of the hard subset.
        map: mAP@0.5:0.95 after COCO, over the faces of the hard subset.
        recall_by_height: rows from small to large faces.
    """

    images: int
    faces: int
    easy: float
    medium: float
    hard: float
    map: float
    recall_by_height: tuple[HeightRecall, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; None stands for NaN and for no upper bound."""
        rows = [_finite(asdict(row)) for row in self.recall_by_height]
        return {**_finite(asdict(self)), "recall_by_height": rows}

    def to_markdown(self) -> str:
        """Return one row of a table: easy, medium, hard, mAP@0.5:0.95."""
        values = (self.easy, self.medium, self.hard, self.map)
        return "| " + " | ".join(f"{value:.3f}" for value in values) + " |"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in values.items()
    }


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
