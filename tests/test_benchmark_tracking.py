"""Tracks of the shared videos' people, counted as the benchmark counts them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from edgeface import Detector, Faces, Tracker

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tracking.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_tracking", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    """A face that leans has a second box, which overlaps the first by 0.39."""
    with Detector("onnxruntime", score_threshold=0.2, nms_threshold=0.3) as detector:
        yield detector


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("name", ["classroom.gif", "head-pose-face-detection-female-and-male.gif"])
def test_people_who_sit_keep_their_numbers(
    benchmark: ModuleType, detector: Detector, data: Path, name: str, every: int
) -> None:
    people, person_at = benchmark.VIDEOS[name]
    result = benchmark.run(data / "video" / name, person_at, detector, Tracker(every=every))
    assert (result.numbers, result.switches, result.shared) == (people, 0, 0)
    assert result.reported > (0.9 if every == 1 else 0.8) * people * result.frames


class Script:
    """A tracker that reports what a test wrote: for each frame, x of a face and its number."""

    every = 1

    def __init__(self, frames: list[list[tuple[int, int]]]) -> None:
        self._frames = iter(frames)

    def update(self, faces: Faces, timestamp: float) -> Faces:
        rows = next(self._frames)
        boxes = np.array([(x, 0, x + 2, 2) for x, _ in rows]).reshape(-1, 4)
        return Faces(boxes, np.linspace(1, 0.5, len(rows)), None, [number for _, number in rows])


@pytest.mark.parametrize(
    ("frames", "switches", "shared"),
    [
        ([[(10, 1), (90, 2)], [(90, 2), (10, 1)]], 0, 0),
        ([[(10, 1)], [], [(10, 1)]], 0, 0),
        ([[(10, 1)], [(10, 2)], [(10, 1)]], 2, 0),
        ([[(10, 1)], [(10, 2), (12, 1)], [(12, 1)]], 0, 0),
        ([[(10, 1), (90, 2)], [(10, 2), (90, 1)]], 2, 2),
    ],
)
def test_switches_are_counted(
    benchmark: ModuleType,
    tmp_path: Path,
    frames: list[list[tuple[int, int]]],
    switches: int,
    shared: int,
) -> None:
    path = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for _ in frames:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    result = benchmark.run(path, benchmark.seated(50), lambda _: Faces.empty(), Script(frames))
    assert (result.frames, result.switches, result.shared) == (len(frames), switches, shared)


def test_people_one_after_another(benchmark: ModuleType) -> None:
    person_at = benchmark.one_by_one((5, 10), (20, 30))
    assert [person_at(frame, 0.0) for frame in (4, 5, 9, 10, 20, 30)] == [None, 0, 0, None, 1, None]
