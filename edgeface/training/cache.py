"""Decoded pictures in one uint8 memmap, so that training spends no core on decoding."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import write_atomic
from edgeface.errors import DatasetError
from edgeface.training.labels import Annotation, Problem


@dataclass(frozen=True)
class PictureCache:
    """Annotations whose pictures are decoded, checked and ready.

    Attributes:
        annotations: those with a readable picture, boxes clipped to it.
        pixels: flat uint8 memmap of all pictures.
        offsets: first byte of each picture in ``pixels``.
        shapes: (height, width) of each picture.
        problems: pictures and faces that were skipped.
    """

    annotations: list[Annotation]
    pixels: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    shapes: NDArray[np.int64]
    problems: list[Problem]

    def __len__(self) -> int:
        return len(self.annotations)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Picture as read-only BGR uint8 (height, width, 3)."""
        height, width = self.shapes[index]
        start = self.offsets[index]
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)


def build_cache(
    annotations: Sequence[Annotation],
    folder: Path,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> PictureCache:
    """Decode every picture once; a later call with the same pictures maps the same file.

    Args:
        annotations: labels as read; faces outside their picture are reported and dropped here,
            because only here is the picture's size known.
        folder: where the cache lives; written by atomic rename.
        progress: wraps the pictures while they are decoded.

    Raises:
        DatasetError: no picture can be read, or the folder cannot be written.
    """
    key = _key(annotations)
    pixels_file, index_file = folder / f"{key}.pixels", folder / f"{key}.json"
    if not index_file.is_file() or not pixels_file.is_file():
        try:
            _decode_all(annotations, pixels_file, index_file, progress)
        except OSError as error:
            raise DatasetError(
                f"expected to write the picture cache in {folder}, got: {error}; "
                "free space there or name another folder"
            ) from error
    index = json.loads(index_file.read_text("utf-8"))
    decoded = [shape is not None for shape in index["shapes"]]
    if not any(decoded):
        raise DatasetError("expected readable pictures, none could be decoded; check the folder")
    problems, kept = [], []
    for annotation, shape in zip(annotations, index["shapes"], strict=True):
        if shape is None:
            line = int(annotation.lines[0]) if len(annotation.lines) else 0
            reason = f"cannot decode the picture {annotation.image}"
            problems.append(Problem(annotation.source, line, reason))
        else:
            height, width = shape
            kept.append(_clip(annotation, height, width, problems))
    shapes = np.array([shape for shape in index["shapes"] if shape is not None], np.int64)
    ends = np.cumsum(shapes.prod(1) * 3)
    pixels = np.memmap(pixels_file, np.uint8, "r")
    if len(pixels) != ends[-1]:
        raise DatasetError(
            f"expected {ends[-1]} bytes in {pixels_file}, got {len(pixels)}; delete it and retry"
        )
    return PictureCache(kept, pixels, np.concatenate([[0], ends[:-1]]), shapes, problems)


def _key(annotations: Sequence[Annotation]) -> str:
    digest = hashlib.sha256()
    for annotation in annotations:
        status = annotation.image.stat()
        digest.update(f"{annotation.image}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _decode_all(
    annotations: Sequence[Annotation],
    pixels_file: Path,
    index_file: Path,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> None:
    pixels_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = pixels_file.with_suffix(f".{os.getpid()}.tmp")
    shapes: list[tuple[int, int] | None] = []
    try:
        with temporary.open("wb") as output:
            for annotation in progress(annotations):
                encoded = np.fromfile(annotation.image, np.uint8)
                picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
                shapes.append(None if picture is None else (picture.shape[0], picture.shape[1]))
                if picture is not None:
                    output.write(np.ascontiguousarray(picture).data)
        temporary.replace(pixels_file)
    finally:
        temporary.unlink(missing_ok=True)
    write_atomic(index_file, json.dumps({"shapes": shapes}).encode())


def _clip(annotation: Annotation, height: int, width: int, problems: list[Problem]) -> Annotation:
    """Clip boxes to the picture; report and drop those that have no part inside."""
    boxes = annotation.boxes.copy()
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
    inside = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    for line, box in zip(annotation.lines[~inside], annotation.boxes[~inside], strict=True):
        left, top, right, bottom = box
        reason = (
            f"box ({left:g}, {top:g}, {right:g}, {bottom:g}) is outside its picture of "
            f"{width} x {height} pixels"
        )
        problems.append(Problem(annotation.source, int(line), reason))
    return replace(annotation, boxes=boxes).keep(inside)
