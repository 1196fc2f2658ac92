"""What an evaluation found, for people (Markdown) and programs (JSON)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


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
        return f"≥{self.low:.0f}" if math.isinf(self.high) else f"{self.low:.0f}–{self.high:.0f}"

    def to_markdown(self) -> str:
        """Return one row of a table: heights, faces, recall at 0.02 and at 0.5."""
        return _row(self.label, self.faces, self.at_002, self.at_050)


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
        return _row(self.easy, self.medium, self.hard, self.map)


@dataclass(frozen=True)
class LandmarkReport:
    """Landmark accuracy over the labelled faces that were found.

    Attributes:
        images: pictures evaluated.
        faces: faces with five labelled landmarks.
        found: share of them with a detection at IoU 0.5 or more.
        mean: mean over the found faces of the NME: the mean distance of the five points from
            their labels, divided by sqrt(width * height) of the labelled box.
        median: its median.
    """

    images: int
    faces: int
    found: float
    mean: float
    median: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; None where no face was found."""
        return _finite(asdict(self))

    def to_markdown(self) -> str:
        """Return one row of a table: images, faces, found, mean and median NME in percent."""
        return _row(self.images, self.faces, self.found, 100 * self.mean, 100 * self.median)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def _row(*cells: str | float) -> str:
    """Format cells as a row of a table: fractions with three digits, a dash for NaN."""
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: str | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.3f}"
