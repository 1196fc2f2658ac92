"""Average precision and landmark error of a detector, on the data that judges quantisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidOptionError
from edgeface.evaluation.average_precision import Detections
from edgeface.evaluation.landmarks import landmark_errors
from edgeface.evaluation.run import Predict, detect, score
from edgeface.evaluation.wider import SUBSETS, WiderImage, load_wider, spread
from edgeface.hardware import host
from edgeface.imageio import read_image
from edgeface.training.labels import Annotation, read_labels

Item = TypeVar("Item")
Track = Callable[[Sequence[Any]], Iterable[Any]]

LABELS = "label.txt"


@dataclass(frozen=True)
class EvaluationData:
    """Pictures that neither training nor calibration saw.

    Attributes:
        pictures: WIDER FACE's, with the official ground truth: average precision.
        labelled: with five landmarks per face: landmark error.
    """

    pictures: tuple[WiderImage, ...]
    labelled: tuple[Annotation, ...]

    def limit(self, count: int) -> EvaluationData:
        """Keep at most that many of each, spread evenly."""
        return EvaluationData(
            tuple(spread(self.pictures, count)), tuple(spread(self.labelled, count))
        )


@dataclass(frozen=True)
class Accuracy:
    """How good a detector is; fractions of one, NaN where a subset has no face.

    Attributes:
        easy: official average precision of WIDER FACE's easy subset.
        medium: of the medium subset.
        hard: of the hard subset.
        landmark_errors: (F,) NME of each labelled face, NaN where it was not found.
    """

    easy: float
    medium: float
    hard: float
    landmark_errors: NDArray[np.float64]

    @property
    def landmark_error(self) -> float:
        """Mean NME of the faces that were found."""
        return _mean(self.landmark_errors)

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers, for JSON; None stands for NaN."""
        values = {name: getattr(self, name) for name in (*SUBSETS, "landmark_error")}
        return {
            name: round(value, 5) if math.isfinite(value) else None
            for name, value in values.items()
        }


def load_evaluation_data(
    folders: Sequence[Path], *, held_out_share: float | None = None, exclude: Iterable[str] = ()
) -> EvaluationData:
    """Load what the gate measures on.

    Args:
        folders: one with WIDER FACE's official ground truth, and one with a ``label.txt`` whose
            faces have five landmarks.
        held_out_share: of the pictures in ``label.txt`` take only those that a training with that
            share held out; None: all.
        exclude: file names of calibration pictures, which are left out.

    Raises:
        InvalidOptionError: a folder is missing among them, or no picture is left.
        DatasetError: a folder cannot be used.
    """
    pictures: list[WiderImage] = []
    labelled: list[Annotation] = []
    for folder in folders:
        if (folder / LABELS).is_file():
            labelled += read_labels(folder).annotations
        else:
            pictures += load_wider(folder)
    if held_out_share is not None:
        from edgeface.training.dataset import held_out

        labelled = [one for one in labelled if held_out(one.image.stem, held_out_share)]
    seen = set(exclude)
    labelled = [
        one
        for one in labelled
        if one.image.name not in seen and not np.isnan(one.landmarks).any(axis=(1, 2)).all()
    ]
    pictures = [one for one in pictures if one.path.name not in seen]
    if not pictures or not labelled:
        raise InvalidOptionError(
            "expected pictures with WIDER FACE's ground truth, for average precision, and others "
            f"with a {LABELS} and landmarks, got {len(pictures)} and {len(labelled)} that "
            "training and calibration did not see; name one folder of each kind (--evaluate twice)"
        )
    return EvaluationData(tuple(pictures), tuple(labelled))


def measure(predict: Predict, data: EvaluationData, track: Track = iter) -> Accuracy:
    """Measure a detector.

    Args:
        predict: takes BGR uint8 (H, W, 3), gives Faces in pixels of that picture. Several threads
            call it at once, one for each core.
        data: what to measure on.
        track: shows progress over a sequence of pictures.

    Raises:
        DatasetError: the detections have no landmarks.
        InvalidImageError: a picture is unreadable.
    """

    def find(picture: WiderImage) -> Detections:
        return detect(predict, [picture])[0]

    def compare(labelled: Annotation) -> NDArray[np.float64]:
        faces = predict(read_image(labelled.image))
        return landmark_errors(faces, labelled.boxes, labelled.landmarks)

    with ThreadPoolExecutor(host().cores) as pool:
        found = pool.map(find, data.pictures)
        detections = [next(found) for _ in track(data.pictures)]
        compared = pool.map(compare, data.labelled)
        errors = [next(compared) for _ in track(data.labelled)]
    report = score(detections, data.pictures)
    return Accuracy(report.easy, report.medium, report.hard, np.concatenate(errors))


def landmark_ratio(reference: Accuracy, candidate: Accuracy) -> float:
    """Landmark error of a candidate relative to the reference's, on faces that both found."""
    both = ~np.isnan(reference.landmark_errors) & ~np.isnan(candidate.landmark_errors)
    mean = _mean(reference.landmark_errors[both])
    return _mean(candidate.landmark_errors[both]) / mean if mean else math.nan


def _mean(errors: NDArray[np.float64]) -> float:
    found = errors[~np.isnan(errors)]
    return float(found.mean()) if len(found) else math.nan
