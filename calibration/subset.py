"""Calibration sets: which pictures, drawn how, and the frames that the SDK makes of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, overload

from edgeface.bundle import write_atomic
from edgeface.calibration.ranges import Frame
from edgeface.errors import CalibrationError
from edgeface.imageio import read_image
from edgeface.preprocess import InputSize, letterbox

SCHEMA = 1


@dataclass(frozen=True)
class Preprocess:
    """What ``edgeface.preprocess.letterbox`` makes the frames with.

    Attributes:
        input_size: long side in pixels, (width, height), or None for the picture's own size.
        stride: the model's coarsest stride.
        pad_value: BGR value outside the picture.
    """

    input_size: InputSize
    stride: int
    pad_value: tuple[int, int, int]


@dataclass(frozen=True)
class Picture:
    """A file of the set, by its name below the root, with the sha256 of its content."""

    name: str
    sha256: str


@dataclass(frozen=True)
class CalibrationSet(Sequence[Frame]):
    """Pictures to calibrate with; indexing reads one and gives its uint8 (1, H, W, 3) frame.

    Attributes:
        root: folder that the pictures' names start from.
        pictures: the files.
        seed: what they were drawn with.
        strategy: how they were drawn.
        preprocess: what makes frames of them.
    """

    root: Path
    pictures: tuple[Picture, ...]
    seed: int
    strategy: str
    preprocess: Preprocess

    @property
    def digest(self) -> str:
        """What identifies the frames: sha256 over the pictures and the preprocess."""
        facts = [asdict(self.preprocess), [asdict(picture) for picture in self.pictures]]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def resized(self, input_size: InputSize) -> CalibrationSet:
        """The same pictures as frames of another input size."""
        return replace(self, preprocess=replace(self.preprocess, input_size=input_size))

    def __len__(self) -> int:
        return len(self.pictures)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> CalibrationSet: ...

    def __getitem__(self, index: int | slice) -> Frame | CalibrationSet:
        if isinstance(index, slice):
            return replace(self, pictures=self.pictures[index])
        picture = self.pictures[index]
        path = self.root / picture.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CalibrationError(
                f"expected the calibration picture {path}, got: {error}; name the folder that "
                "holds it with --data, or draw again with 'edgeface calibrate'"
            ) from error
        if hashlib.sha256(content).hexdigest() != picture.sha256:
            raise CalibrationError(
                f"expected {path} as it was drawn (sha256 {picture.sha256[:12]}), got another "
                "content; draw again with 'edgeface calibrate'"
            )
        how = self.preprocess
        frame, _ = letterbox(
            read_image(content), how.input_size, stride=how.stride, pad_value=how.pad_value
        )
        return frame

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))


def write_manifest(calibration: CalibrationSet, path: Path) -> None:
    """Write a calibration manifest as JSON, by atomic rename."""
    root = calibration.root.absolute()
    content = {
        "schema": SCHEMA,
        "digest": calibration.digest,
        "root": os.path.relpath(root, path.absolute().parent),
        "seed": calibration.seed,
        "strategy": calibration.strategy,
        "preprocess": asdict(calibration.preprocess),
        "pictures": {picture.name: picture.sha256 for picture in calibration.pictures},
    }
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def read_manifest(path: Path, root: Path | None = None) -> CalibrationSet:
    """Read a calibration manifest.

    Args:
        path: a file of ``write_manifest``.
        root: where the pictures are, if not where they were.

    Raises:
        CalibrationError: it cannot be read, or was changed since it was written.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}")
        calibration = CalibrationSet(
            root or path.absolute().parent / content["root"],
            tuple(Picture(str(name), str(digest)) for name, digest in content["pictures"].items()),
            int(content["seed"]),
            str(content["strategy"]),
            _preprocess(content["preprocess"]),
        )
        if calibration.digest != content["digest"]:
            raise ValueError("its digest is of another content")
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CalibrationError(
            f"expected a calibration manifest of schema {SCHEMA} in '{path}', got {error!r}; "
            "make one with 'edgeface calibrate'"
        ) from error
    return calibration


def check_fits(calibration: CalibrationSet, preprocess: Preprocess) -> None:
    """Raise CalibrationError where a set was made for a model that is fed otherwise."""
    made = calibration.preprocess
    if (made.stride, made.pad_value) != (preprocess.stride, preprocess.pad_value):
        raise CalibrationError(
            f"expected calibration frames of stride {preprocess.stride} padded with "
            f"{preprocess.pad_value}, as this model is fed, got stride {made.stride} and "
            f"{made.pad_value}; draw for this model with 'edgeface calibrate'"
        )


def _preprocess(content: Mapping[str, Any]) -> Preprocess:
    size = content["input_size"]
    blue, green, red = content["pad_value"]
    return Preprocess(
        (int(size[0]), int(size[1])) if isinstance(size, list) else size,
        int(content["stride"]),
        (int(blue), int(green), int(red)),
    )
