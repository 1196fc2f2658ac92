"""Face labels: WIDER FACE's official files and RetinaFace's ``label.txt``, read by one loader.

A label that cannot be used is reported with its file and line, counted and skipped; training goes
on with the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DatasetError
from edgeface.imageio import PICTURES

BOX_VALUES = 4
LANDMARK_VALUES = 15
OFFICIAL_VALUES = 10
OFFICIAL_INVALID = 7


@dataclass(frozen=True)
class Problem:
    """A label or picture that was skipped."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Annotation:
    """The labelled faces of one picture.

    Attributes:
        image: path of the picture.
        event: first folder of its name, WIDER FACE's event; "" where there is none.
        boxes: float32 (N, 4), left, top, right, bottom in pixels.
        landmarks: float32 (N, 5, 2): left eye, right eye, nose, left and right mouth corner as
            seen in the picture; NaN where unlabelled.
        ignore: bool (N,): neither face nor background, never punished.
        source: label file, for reports.
        lines: int (N,): line of each face in the label file.
    """

    image: Path
    event: str
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    ignore: NDArray[np.bool_]
    source: Path
    lines: NDArray[np.int64]

    def keep(self, mask: NDArray[np.bool_]) -> Annotation:
        """Return the annotation with only the faces where the mask is true."""
        return replace(
            self,
            boxes=self.boxes[mask],
            landmarks=self.landmarks[mask],
            ignore=self.ignore[mask],
            lines=self.lines[mask],
        )


@dataclass
class LabelSet:
    """Annotations of one root and what was skipped on the way."""

    annotations: list[Annotation] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class _Face:
    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    ignore: bool
    line: int


def read_labels(root: Path) -> LabelSet:
    """Read a root's labels, whichever of the two layouts it has.

    Args:
        root: a folder with ``label.txt`` and ``images/``, or WIDER FACE's official folder with
            ``WIDER_train/images`` and ``wider_face_split/wider_face_train_bbx_gt.txt``.

    Raises:
        DatasetError: the folder has neither layout, or no usable picture.
    """
    retinaface = root / "label.txt"
    official = root / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    labels = LabelSet()
    if retinaface.is_file():
        images = root / "images"
        entries = _read_retinaface(retinaface, labels)
        source = retinaface
    elif official.is_file():
        images = root / "WIDER_train" / "images"
        entries = _read_official(official, labels)
        source = official
    else:
        raise DatasetError(
            f"expected {retinaface} or {official}, found neither; name a folder with RetinaFace's "
            "label.txt and images/, or WIDER FACE's official layout"
        )
    for name, line, faces in entries:
        image = _find_picture(images / name)
        if image is None:
            labels.problems.append(Problem(source, line, f"no picture {images / name}"))
            continue
        labels.annotations.append(_annotation(image, name, faces, source))
    if not labels.annotations:
        raise DatasetError(
            f"expected pictures under {images} as named in {source}, found none of them; "
            "check that the pictures were unpacked there"
        )
    return labels


def _find_picture(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next((p for s in sorted(PICTURES) if (p := path.with_suffix(s)).is_file()), None)


def _annotation(image: Path, name: str, faces: list[_Face], source: Path) -> Annotation:
    parts = Path(name).parts
    return Annotation(
        image=image,
        event=parts[0] if len(parts) > 1 else "",
        boxes=np.array([face.box for face in faces], np.float32).reshape(-1, 4),
        landmarks=np.array([face.landmarks for face in faces], np.float32).reshape(-1, 5, 2),
        ignore=np.array([face.ignore for face in faces], bool),
        source=source,
        lines=np.array([face.line for face in faces], np.int64),
    )


def _read_retinaface(file: Path, labels: LabelSet) -> Iterator[tuple[str, int, list[_Face]]]:
    """Yield (picture name, line, faces) of blocks that start with ``# name``."""
    name, start, faces = "", 0, list[_Face]()
    for number, text in enumerate(file.read_text("utf-8").splitlines(), 1):
        line = text.strip()
        if line.startswith("#"):
            if name:
                yield name, start, faces
            name, start, faces = line[1:].strip(), number, []
        elif line:
            try:
                if not name:
                    raise ValueError("a face before the first '# picture' line")
                faces.append(_retinaface_face(line.split(), number))
            except ValueError as error:
                labels.problems.append(Problem(file, number, str(error)))
    if name:
        yield name, start, faces


def _retinaface_face(tokens: list[str], line: int) -> _Face:
    """Parse ``x y w h``, optionally five ``x y flag`` and one last column.

    The last column is the ``valid`` flag where it is the integer 0 or 1; RetinaFace's own files
    have a picture quality with a decimal point there, which says nothing about validity.
    """
    with_landmarks = BOX_VALUES + LANDMARK_VALUES
    if len(tokens) not in (BOX_VALUES, with_landmarks, with_landmarks + 1):
        raise ValueError(
            f"expected {BOX_VALUES}, {with_landmarks} or {with_landmarks + 1} values, "
            f"got {len(tokens)}"
        )
    values = _numbers(tokens)
    landmarks = np.full((5, 2), np.nan, np.float32)
    if len(values) >= with_landmarks:
        points = np.array(values[BOX_VALUES:with_landmarks], np.float32).reshape(5, 3)
        if (points[:, 2] >= 0).all():
            landmarks = points[:, :2]
    invalid = len(tokens) > with_landmarks and tokens[-1] == "0"
    return _Face(_corners(values), landmarks, invalid, line)


def _read_official(file: Path, labels: LabelSet) -> Iterator[tuple[str, int, list[_Face]]]:
    """Yield (picture name, line, faces) of blocks ``name``, count, one line per face.

    A picture without faces has count 0 and one line of zeros.
    """
    rows = file.read_text("utf-8").splitlines()
    position = 0
    while position < len(rows):
        name, start = rows[position].strip(), position + 1
        position += 1
        if not name:
            continue
        try:
            count = int(rows[position])
        except (IndexError, ValueError):
            labels.problems.append(Problem(file, start, f"expected a face count after '{name}'"))
            continue
        faces = []
        for number in range(position + 2, position + 2 + count):
            try:
                faces.append(_official_face(rows[number - 1].split(), number))
            except (IndexError, ValueError) as error:
                labels.problems.append(Problem(file, number, str(error)))
        position += 1 + max(count, 1)
        yield name, start, faces


def _official_face(tokens: list[str], line: int) -> _Face:
    """Parse ``x y w h blur expression illumination invalid occlusion pose``."""
    if len(tokens) != OFFICIAL_VALUES:
        raise ValueError(f"expected {OFFICIAL_VALUES} values, got {len(tokens)}")
    values = _numbers(tokens)
    unlabelled = np.full((5, 2), np.nan, np.float32)
    return _Face(_corners(values), unlabelled, values[OFFICIAL_INVALID] == 1, line)


def _numbers(tokens: list[str]) -> list[float]:
    values = [float(token) for token in tokens]
    if not np.isfinite(values).all():
        raise ValueError("expected finite numbers, got nan or inf")
    return values


def _corners(values: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values[:BOX_VALUES]
    if width <= 0 or height <= 0:
        raise ValueError(f"expected a box with positive sides, got {width:g} x {height:g}")
    return x, y, x + width, y + height
