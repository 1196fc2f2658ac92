"""Detections in the official text format: one file per picture, by event.

``<event>/<name>.txt`` holds the picture's name, the number of faces, and a line
``x y width height score`` for each, in pixels of the original picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeface.bundle import write_atomic
from edgeface.errors import DatasetError
from edgeface.evaluation.average_precision import Detections
from edgeface.evaluation.wider import WiderImage
from edgeface.outputs.datasets import wider_text


def write_predictions(
    folder: Path, dataset: Sequence[WiderImage], detections: Sequence[Detections]
) -> None:
    """Write one file per picture, each by atomic rename."""
    for image, found in zip(dataset, detections, strict=True):
        text = wider_text(image.name, found.boxes, found.scores)
        write_atomic(folder / image.event / f"{image.name}.txt", text.encode())


def read_predictions(folder: Path, dataset: Sequence[WiderImage]) -> list[Detections]:
    """Read the file of each picture.

    Raises:
        DatasetError: a picture has no file, or a file is malformed.
    """
    return [_read(folder / image.event / f"{image.name}.txt") for image in dataset]


def _read(path: Path) -> Detections:
    try:
        rows = path.read_text("utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"expected the predictions of a picture in {path}, but it cannot be read ({error}); "
            "write one file per picture, with count 0 where there is no face"
        ) from error
    values = []
    for number, row in enumerate(rows[2:], 3):
        try:
            x, y, width, height, score = map(float, row.split())
        except ValueError:
            raise DatasetError(
                f"expected 'x y width height score' in {path}:{number}, got {row!r}; "
                "each file is the picture's name, the number of faces, then one line per face"
            ) from None
        values.append((x, y, x + width, y + height, score))
    table = np.array(values, np.float64).reshape(-1, 5)
    if len(rows) < 2 or rows[1].strip() != str(len(table)) or not np.isfinite(table).all():
        raise DatasetError(
            f"expected the number of faces in line 2 of {path}, then as many lines of finite "
            f"numbers, got {len(table)} lines; write the predictions again"
        )
    return Detections.sort(table[:, :4], table[:, 4])
