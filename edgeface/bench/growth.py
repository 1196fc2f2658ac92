"""How cost grows: with the picture's size, the faces in it, threads and batches."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import cv2

from edgeface.bench.candidates import Ours
from edgeface.bench.comparison import STAGES
from edgeface.bench.machine import Machine
from edgeface.bench.scenes import Image, Size, crowd, cut_face, fit
from edgeface.bench.settings import Settings
from edgeface.bench.timing import Times, interleave
from edgeface.detector import Detector
from edgeface.hardware import host

SIZES: tuple[Size, ...] = ((320, 240), (640, 480), (1280, 720), (1920, 1080), (3840, 2160))
REFERENCE: Size = (640, 480)
CROWDS = (0, 1, 50, 500)
CROWDED: Size = (1920, 1080)
FEW, CELL = 9, 80
BATCHES = (1, 2, 4, 8, 16)
VGA: Size = (640, 480)
FLAT = 0.2

WHOLE, SHRUNK = "size, all of it", "size, shrunk to 640"
FACES, THREADS, BATCH = "faces", "threads", "batch"

Track = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Point:
    """One step of a curve.

    Attributes:
        candidate: what ran.
        step: size, faces, threads or batch, in words.
        milliseconds: median of a picture.
        cpu: median time of the CPU for a picture, of all threads.
        stages: median milliseconds of each stage; of the last picture in a batch.
        faces: found in a picture.
        megapixels: of the picture.
    """

    candidate: str
    step: str
    milliseconds: float
    cpu: float
    stages: Mapping[str, float]
    faces: int
    megapixels: float

    @property
    def per_megapixel(self) -> float:
        """Milliseconds per megapixel of the picture."""
        return self.milliseconds / self.megapixels


@dataclass
class Growth:
    """The curves measured so far.

    Attributes:
        curves: points by the curve's name, in order.
        rounds: timed turns of each point.
        interrupted: it was stopped before its end.
        machine: where it was measured, as it was before.
    """

    rounds: int
    curves: dict[str, list[Point]] = field(default_factory=dict)
    interrupted: bool = False
    machine: Machine = field(default_factory=Machine.read)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "machine": self.machine.to_dict(),
            "rounds": self.rounds,
            "interrupted": self.interrupted,
            "curves": {
                name: [{**asdict(one), "per_megapixel": one.per_megapixel} for one in points]
                for name, points in self.curves.items()
            },
        }


@dataclass(frozen=True)
class Step:
    """A point to measure: a candidate in settings of its own, and what it looks at."""

    name: str
    candidate: Ours
    settings: Settings
    image: Image
    batch: int = 1


def grow(
    candidates: Sequence[Ours],
    image: Image,
    *,
    rounds: int,
    track: Callable[[str, Sequence[Any]], Iterable[Any]] = lambda _, items: items,
) -> Growth:
    """Measure every curve; an interruption keeps those that are whole.

    Args:
        candidates: what to measure, one after another.
        image: a picture with a face, BGR uint8 (H, W, 3).
        rounds: timed turns of each point.
        track: shows progress over items, after a description.

    Raises:
        InvalidImageError: no face is found in the picture.
        EdgeFaceError: a candidate does not load, or fails.
    """
    result = Growth(rounds)
    face = find_face(image, candidates[0])
    curves: dict[str, Callable[[Ours], Iterator[Step]]] = {
        WHOLE: lambda one: sizes(one, face),
        SHRUNK: lambda one: shrunk(one, image),
        FACES: lambda one: crowds(one, face),
        THREADS: lambda one: threads(one, image),
        BATCH: lambda one: batches(one, image),
    }
    try:
        for name, steps in curves.items():
            points = [
                point
                for one in candidates
                for point in measure(
                    list(steps(one)), rounds, partial(track, f"{name}, {one.name}")
                )
            ]
            result.curves[name] = points
    except KeyboardInterrupt:
        if not result.curves:
            raise
        result.interrupted = True
    return result


def find_face(image: Image, candidate: Ours) -> Image:
    """Cut the best face out of the picture; errors as of ``cut_face``."""
    with Detector(model=candidate.model) as detector:
        return cut_face(image, detector)


def sizes(candidate: Ours, face: Image) -> Iterator[Step]:
    """A few faces of one size in larger and larger pictures, every pixel of which is seen."""
    for width, height in SIZES:
        cells = width * height // CELL**2
        picture = crowd(face, (width, height), FEW, cells)
        yield Step(f"{width} x {height}", candidate, Settings(None), picture)


def shrunk(candidate: Ours, image: Image) -> Iterator[Step]:
    """The same picture, larger and larger, shrunk to the default long side."""
    for width, height in SIZES:
        yield Step(f"{width} x {height}", candidate, Settings(), fit(image, (width, height)))


def crowds(candidate: Ours, face: Image) -> Iterator[Step]:
    """More and more faces of one size in pictures of one size."""
    for faces in CROWDS:
        picture = crowd(face, CROWDED, faces, max(CROWDS))
        yield Step(f"{faces}", candidate, Settings(None), picture)


def threads(candidate: Ours, image: Image) -> Iterator[Step]:
    """One thread, two, four, as far as the machine has cores."""
    for number in (one for one in (1, 2, 4, 8) if one <= host().cores):
        one = replace(candidate, threads=number)
        yield Step(f"{number}", one, Settings(), fit(image, VGA))


def batches(candidate: Ours, image: Image) -> Iterator[Step]:
    """Lists of pictures, as ``detector(list)`` takes them."""
    for batch in BATCHES:
        yield Step(f"{batch}", candidate, Settings(), fit(image, VGA), batch)


def measure(steps: Sequence[Step], rounds: int, track: Track) -> Iterator[Point]:
    """Time steps that take turns, each on a detector of its own, as an app would run it."""
    profiles: list[dict[int, dict[str, float]]] = []
    told: dict[int, dict[str, float]] = {}
    found = [0] * len(steps)
    with ExitStack() as stack:
        detectors: list[Any] = []
        for step in steps:
            detectors.append(step.candidate.open(step.settings))
            stack.callback(detectors[-1].close)

        def look(place: int) -> None:
            step, detector = steps[place], detectors[place]
            if step.batch == 1:
                found[place] = len(detector(step.image))
            else:
                found[place] = len(detector([step.image] * step.batch)[0])
            told[place] = dict(detector.profile)

        turns = interleave(
            {place: partial(look, place) for place in range(len(steps))},
            rounds,
            warm_up=2,
            prepare=lambda place: cv2.setNumThreads(steps[place].candidate.threads),
        )
        taken = []
        for _ in track(range(rounds)):
            taken.append(next(turns))
            profiles.append(dict(told))
    for place, step in enumerate(steps):
        height, width = step.image.shape[:2]
        times = Times.of([one[place] for one in taken])
        yield Point(
            candidate=step.candidate.name,
            step=step.name,
            milliseconds=times.p50 / step.batch,
            cpu=times.cpu / step.batch,
            stages={
                stage: statistics.median(profile[place][stage] for profile in profiles)
                for stage in STAGES
            },
            faces=found[place],
            megapixels=width * height / 1e6,
        )
