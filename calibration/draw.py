"""Drawing a calibration set: seeded, and even over events, sizes of faces and brightness."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.calibration.subset import CalibrationSet, Picture, Preprocess
from edgeface.errors import CalibrationError, EdgeFaceError, InvalidOptionError
from edgeface.faces import Faces
from edgeface.imageio import PICTURES, read_image
from edgeface.preprocess import content_size
from edgeface.training.labels import read_labels

STRATEGIES = ("stratified", "random")
LEAST = 16
# Pixels of a face's height in the network frame, and grey levels of a picture.
SIZES = (16, 32, 64, 128)
BRIGHTNESS = (70, 110, 150)
NO_FACE = -1
# Share of the drawn pictures that may show no face.
WITHOUT_FACES = 0.5

Predict = Callable[[Any], Faces]


@dataclass(frozen=True)
class Candidate:
    """A readable picture: its name, content hash, and the cell that it counts for.

    Attributes:
        size: class of the median face's height; NO_FACE without one, None where nobody knows.
    """

    name: str
    sha256: str
    event: str
    size: int | None
    brightness: int


@dataclass(frozen=True)
class Drawn:
    """A set, and what it was drawn from.

    Attributes:
        calibration: the set.
        skipped: pictures that cannot be read, with the reason.
        cells: number of drawn pictures by (event, class of size, class of brightness).
    """

    calibration: CalibrationSet
    skipped: tuple[str, ...]
    cells: Counter[tuple[str, int | None, int]]


def draw(
    data: Path,
    preprocess: Preprocess,
    predict: Predict | None = None,
    *,
    images: int = 300,
    seed: int = 0,
    strategy: str = "stratified",
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> Drawn:
    """Draw pictures of a folder.

    Stratified goes round the events, and within each round the sizes of faces and brightnesses
    that it has, so that no event and no cell dominates.

    Args:
        data: a folder with ``label.txt`` and ``images/``, WIDER FACE's official layout, or any
            folder of pictures, whose subfolders count as events.
        preprocess: what the model's frames are made with.
        predict: finds faces in BGR uint8 pictures; for folders without labels. None: faces are
            neither known nor asked for there.
        images: how many.
        seed: of the draw; the same seed and files give the same set.
        strategy: one of STRATEGIES.
        progress: shows how far it is.

    Raises:
        InvalidOptionError: too few images asked for, or an unknown strategy.
        DatasetError: labels without pictures.
        CalibrationError: too few readable pictures, or too few with a face.
    """
    if strategy not in STRATEGIES:
        raise InvalidOptionError(
            f"expected a strategy of {', '.join(STRATEGIES)}, got '{strategy}'"
        )
    if images < LEAST:
        raise InvalidOptionError(f"expected at least {LEAST} calibration images, got {images}")
    files, root = _files(data)
    skipped, candidates = [], []
    for event, path, heights in progress(files):
        try:
            candidates.append(_candidate(root, event, path, heights, preprocess, predict))
        except (EdgeFaceError, OSError) as error:
            skipped.append(f"{path.relative_to(root)}: {error}")
    if len(candidates) < images:
        unread = f" and {len(skipped)} that cannot be read" if skipped else ""
        raise CalibrationError(
            f"expected {images} calibration pictures in {data}, got {len(candidates)}{unread}; "
            "add pictures, or ask for fewer with --images"
        )
    rng = np.random.default_rng(seed)
    shuffled = [candidates[index] for index in rng.permutation(len(candidates))]
    chosen = (shuffled if strategy == "random" else list(_even(shuffled)))[:images]
    empty = sum(one.size == NO_FACE for one in chosen)
    if empty > WITHOUT_FACES * len(chosen):
        raise CalibrationError(
            f"expected faces in at least half of the calibration pictures, got {empty} of "
            f"{len(chosen)} without a face; calibrate with pictures like those of the application"
        )
    pictures = tuple(Picture(one.name, one.sha256) for one in chosen)
    return Drawn(
        CalibrationSet(root, pictures, seed, strategy, preprocess),
        tuple(skipped),
        Counter((one.event, one.size, one.brightness) for one in chosen),
    )


def _files(data: Path) -> tuple[list[tuple[str, Path, NDArray[np.float32] | None]], Path]:
    """Event, path and faces' heights of each picture, by name; and the names' root."""
    if (data / "label.txt").is_file() or (data / "wider_face_split").is_dir():
        labels = read_labels(data).annotations
        found = [(one.event, one.image, _heights(one.boxes[~one.ignore])) for one in labels]
        return sorted(found, key=lambda one: one[1].as_posix()), data
    paths = sorted(path for path in data.rglob("*") if path.suffix.lower() in PICTURES)
    return [(path.parent.name, path, None) for path in paths if path.is_file()], data


def _heights(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return boxes[:, 3] - boxes[:, 1]


def _candidate(
    root: Path,
    event: str,
    path: Path,
    heights: NDArray[np.float32] | None,
    preprocess: Preprocess,
    predict: Predict | None,
) -> Candidate:
    content = path.read_bytes()
    image = read_image(content)
    if heights is None and predict is not None:
        heights = _heights(predict(image).boxes)
    size = None
    if heights is not None:
        height, width = image.shape[:2]
        scale = content_size(width, height, preprocess.input_size)[1] / height
        size = NO_FACE
        if len(heights):
            size = int(np.digitize(np.median(heights) * scale, SIZES))
    return Candidate(
        path.relative_to(root).as_posix(),
        hashlib.sha256(content).hexdigest(),
        event,
        size,
        int(np.digitize(image.mean(), BRIGHTNESS)),
    )


def _even(shuffled: Sequence[Candidate]) -> Iterator[Candidate]:
    """Go round the events, and within each round its cells of size and brightness."""
    events: dict[str, dict[tuple[int | None, int], list[Candidate]]] = defaultdict(dict)
    for one in shuffled:
        events[one.event].setdefault((one.size, one.brightness), []).append(one)
    queues = [_around(list(cells.values())) for _, cells in sorted(events.items())]
    return _around(queues)


def _around(queues: Iterable[Iterable[Candidate]]) -> Iterator[Candidate]:
    """Take one of each in turn until all are empty."""
    waiting = [iter(queue) for queue in queues]
    while waiting:
        left = []
        for queue in waiting:
            for one in queue:
                yield one
                left.append(queue)
                break
        waiting = left
