"""Tracks on the shared videos against the people whom a viewer counts in them, as a Markdown table.

    python benchmarks/tracking.py $EDGEFACE_DATA/video > table.md

The truth was read off the frames: who sits where in ``classroom`` and ``head-pose``, and from which
frame to which each of six people stands in ``one-by-one``, whose faces are seen from behind or
aside only. A switch is, as in CLEAR MOT (Bernardin and Stiefelhagen 2008), a person who is reported
with another number than before, and not with the one before; a shared number is one that two people
got.
"""

from __future__ import annotations

import argparse
import time
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edgeface import Detector, Faces, Tracker
from edgeface.video import Video

Person: TypeAlias = Callable[[int, float], int | None]

EVERY = (1, 2, 3, 5, 10)


def seated(*bounds: float) -> Person:
    """People side by side, separated at these x."""
    return lambda _, x: bisect(bounds, x)


def one_by_one(*stays: tuple[int, int]) -> Person:
    """People one after another, from frame to frame."""

    def person(frame: int, _: float) -> int | None:
        return next((i for i, (first, end) in enumerate(stays) if first <= frame < end), None)

    return person


STAYS = ((61, 197), (228, 446), (503, 696), (746, 866), (922, 1197), (1236, 1359))
VIDEOS: dict[str, tuple[int, Person]] = {
    "classroom.gif": (4, seated(105, 187, 278)),
    "head-pose-face-detection-female-and-male.gif": (2, seated(220)),
    "one-by-one-person-detection.mp4": (6, one_by_one(*STAYS)),
}


@dataclass(frozen=True)
class Result:
    """What a run over a video gave."""

    frames: int
    reported: int
    numbers: int
    switches: int
    shared: int
    detect_ms: float
    track_ms: float


def run(path: Path, person_at: Person, detector: Detector, tracker: Tracker) -> Result:
    """Track a video and compare it with the truth."""
    detecting = tracking = 0.0
    reported = switches = frames = 0
    last: dict[int, int] = {}
    owners: dict[int, set[int | None]] = {}
    with Video(path) as video:
        while (frame := video.read()) is not None:
            seconds = frames / video.fps
            started = time.perf_counter()
            found = detector(frame.image) if frames % tracker.every == 0 else None
            detected = time.perf_counter()
            faces = tracker.predict(seconds) if found is None else tracker.update(found, seconds)
            detecting += detected - started
            tracking += time.perf_counter() - detected
            for person, numbers in numbers_of_each(faces, frames, person_at).items():
                for number in numbers:
                    owners.setdefault(number, set()).add(person)
                if person is not None:
                    reported += 1
                    if last.setdefault(person, numbers[0]) not in numbers:
                        switches += 1
                        last[person] = numbers[0]
            frames += 1
    shared = sum(len(people - {None}) > 1 for people in owners.values())
    milliseconds = 1e3 / frames
    return Result(
        frames,
        reported,
        len(owners),
        switches,
        shared,
        detecting * milliseconds,
        tracking * milliseconds,
    )


def numbers_of_each(faces: Faces, frame: int, person_at: Person) -> dict[int | None, list[int]]:
    """Return the numbers that each person got in a frame, the best face's first."""
    numbers: dict[int | None, list[int]] = {}
    for face in faces:
        if face.track_id is not None:
            person = person_at(frame, float(face.box[::2].mean()))
            numbers.setdefault(person, []).append(face.track_id)
    return numbers


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, help="folder with the videos")
    parser.add_argument("--model", default="retinaface_mobilenet025", help="name or bundle folder")
    parser.add_argument("--backend", default="auto")
    args = parser.parse_args()

    print(
        "| video | people | detection every | people reported per frame | numbers | switches "
        "| shared numbers | detection ms per frame | tracking ms per frame |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with Detector(args.backend, model=args.model, score_threshold=0.2) as detector:
        for name, (people, person_at) in VIDEOS.items():
            for every in EVERY:
                result = run(args.videos / name, person_at, detector, Tracker(every=every))
                print(
                    f"| {name.split('.')[0].split('-face')[0]} | {people} | {every} "
                    f"| {result.reported / result.frames:.2f} | {result.numbers} "
                    f"| {result.switches} | {result.shared} | {result.detect_ms:.1f} "
                    f"| {result.track_ms:.2f} |"
                )


if __name__ == "__main__":
    main()
