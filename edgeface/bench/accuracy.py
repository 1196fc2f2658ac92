"""Average precision of what is timed: as its report says, as measured before, or measured now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeface.bench.candidates import Candidate, Ours
from edgeface.bench.settings import Settings
from edgeface.bundle import load_bundle
from edgeface.errors import DatasetError
from edgeface.evaluation.run import MAX_FACES, NMS_THRESHOLD, SCORE_THRESHOLD, detect, score
from edgeface.evaluation.wider import WiderImage
from edgeface.preprocess import InputSize
from edgeface.runtimes.base import backend as find_backend

REPORT = "conversion.json"
OPERATING_POINTS: dict[InputSize, str] = {640: "long side 640", None: "original size"}

Track = Callable[[Sequence[WiderImage], str], Iterable[WiderImage]]


@dataclass(frozen=True)
class Precision:
    """Average precision on WIDER FACE's three subsets, fractions of one.

    Attributes:
        easy: of the easy subset.
        medium: of the medium subset.
        hard: of the hard subset.
        source: where the figures come from.
    """

    easy: float
    medium: float
    hard: float
    source: str


def stored(candidate: Candidate, input_size: InputSize) -> Precision | None:
    """Read what a model's conversion report or manifest says of the artifact that runs.

    Args:
        candidate: a peer's file tells nothing.
        input_size: the operating point; reports hold long side 640 and the original size.
    """
    point = OPERATING_POINTS.get(input_size if not isinstance(input_size, tuple) else 0)
    if not isinstance(candidate, Ours) or point is None:
        return None
    bundle = load_bundle(candidate.model)
    backend, precision = candidate.runs
    report = _json(bundle.path / REPORT)
    for row in report.get("rows", ()):
        if (row["target"], row["precision"]) == (find_backend(backend).formats[0], precision):
            figures = row["accuracy"].get(point, {}).get("quantised")
            if figures:
                return _precision(figures, "the model's conversion report")
    accuracy: Mapping[str, Any] = bundle.metadata.get("accuracy", {}).get(precision, {})
    figures = accuracy.get(point.replace(" ", "_"))
    return _precision(figures, "the model's manifest") if figures else None


def recalled(path: Path) -> dict[str, Precision]:
    """Read the figures of an earlier ``edgeface bench --json``, by the candidate's name.

    Raises:
        DatasetError: it is no such file.
    """
    try:
        rows = json.loads(path.read_text("utf-8"))["candidates"]
        return {
            row["name"]: _precision(row["accuracy"], row["accuracy"]["source"])
            for row in rows
            if row["accuracy"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"expected what 'edgeface bench --json' wrote in {path}, got {error!r}; measure anew "
            "with --evaluate"
        ) from error


def measured(
    candidate: Candidate,
    dataset: Sequence[WiderImage],
    input_size: InputSize,
    track: Track = lambda items, _: items,
) -> Precision:
    """Measure on WIDER FACE's pictures, with the settings of published figures.

    Raises:
        EdgeFaceError: the candidate or a picture cannot be used.
    """
    settings = Settings(input_size, SCORE_THRESHOLD, NMS_THRESHOLD, MAX_FACES)
    opened = candidate.open(settings)
    try:
        report = score(detect(opened, track(dataset, candidate.name)), dataset)
    finally:
        opened.close()
    return Precision(report.easy, report.medium, report.hard, f"{report.images} pictures")


def _precision(figures: Mapping[str, Any], source: str) -> Precision:
    easy, medium, hard = (float(figures[subset]) for subset in ("easy", "medium", "hard"))
    return Precision(easy, medium, hard, source)


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content
