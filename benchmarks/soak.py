"""A long run of one detector over mixed sizes and face counts: does anything grow or slow down?

    python benchmarks/soak.py [--backend onnxruntime] [--minutes 60] [--fps 10] > table.md

The pictures are made of the portrait in docs/: none, one, four or sixteen of it, at sizes from
320x240 to 1280x720. Frame times are the process's CPU time, which other work on the machine
disturbs less than the wall clock. Exit code 1: a bound was broken.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.bench.process import Sample, sample, slope
from edgeface.hardware import host

PORTRAIT = Path(__file__).parents[1] / "docs" / "astronaut.jpg"
SIZES = ((320, 240), (640, 480), (480, 640), (1280, 720))
GRIDS = (0, 1, 2, 4)
SAMPLES = 120
WARM_UP = 0.2
MAX_SLOPE = 1.0
NOISE_MIB = 1.0
MAX_DRIFT = 0.1


@dataclass(frozen=True)
class Run:
    """What a soak saw.

    Attributes:
        samples: the process's figures over time.
        cost: CPU seconds of each frame as a multiple of its kind's median, in order.
        faces: found in all.
    """

    samples: list[Sample]
    cost: NDArray[np.float64]
    faces: int

    @property
    def settled(self) -> list[Sample]:
        """Samples after the warm-up."""
        return [one for one in self.samples if one.seconds >= WARM_UP * self.samples[-1].seconds]

    @property
    def slope(self) -> float:
        """Growth of the RSS after the warm-up, in MiB an hour."""
        return slope(self.settled)

    @property
    def drift(self) -> float:
        """Growth of the frames' p99 from the first third after the warm-up to the last."""
        cost = self.cost[int(WARM_UP * len(self.cost)) :]
        third = len(cost) // 3
        early, late = np.percentile(cost[:third], 99), np.percentile(cost[-third:], 99)
        return float(late / early - 1)

    def broken(self) -> list[str]:
        """Name the bounds that do not hold."""
        first, last = self.settled[0], self.settled[-1]
        hours = (last.seconds - first.seconds) / 3600
        growth = max(MAX_SLOPE * hours, NOISE_MIB)
        bounds = {
            f"RSS grows by at most {MAX_SLOPE} MiB/h": self.slope * hours <= growth,
            "the number of threads is constant": first.threads == last.threads,
            "the number of open files is constant": first.files == last.files,
            f"p99 drifts by at most {MAX_DRIFT:.0%}": self.drift <= MAX_DRIFT,
            "faces are found": self.faces > 0,
        }
        return [bound for bound, holds in bounds.items() if not holds]


def pictures() -> list[NDArray[np.uint8]]:
    """Every size with every number of faces, BGR uint8."""
    portrait = np.asarray(cv2.imread(str(PORTRAIT)), np.uint8)
    made = []
    for width, height in SIZES:
        for grid in GRIDS:
            canvas = np.full((height, width, 3), 127, np.uint8)
            for row in range(grid):
                for column in range(grid):
                    top, left = row * height // grid, column * width // grid
                    side = min(height, width) // grid
                    canvas[top : top + side, left : left + side] = cv2.resize(
                        portrait, (side, side), interpolation=cv2.INTER_AREA
                    )
            made.append(canvas)
    return made


def soak(detector: Detector, seconds: float, fps: float) -> Run:
    """Detect for that long, at most ``fps`` frames a second.

    Memory is looked at between rounds over all pictures: the buffers of each size differ.
    """
    frames = pictures()
    times: list[list[float]] = [[] for _ in frames]
    samples: list[Sample] = []
    faces = 0
    for frame in frames:
        detector(frame)
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        if now >= len(samples) * seconds / SAMPLES:
            samples.append(sample(now))
        for number, frame in enumerate(frames):
            started, due = time.process_time(), time.monotonic() + 1 / fps
            faces += len(detector(frame))
            times[number].append(time.process_time() - started)
            time.sleep(max(0.0, due - time.monotonic()))
    samples.append(sample(now))
    relative = [np.array(kind) / np.median(kind) for kind in times]
    return Run(samples, np.stack(relative, 1).ravel(), faces)


def table(run: Run) -> str:
    """The Markdown table."""
    first, settled, last = run.samples[0], run.settled[0], run.samples[-1]
    rows: dict[str, Sequence[str]] = {
        "length": [f"{last.seconds / 60:.1f} min, {len(run.cost)} frames, {run.faces} faces"],
        "RSS at the start, after warm-up, highest, at the end": [
            f"{first.rss_mib:.1f}, {settled.rss_mib:.1f}, "
            f"{max(one.rss_mib for one in run.samples):.1f}, {last.rss_mib:.1f} MiB"
        ],
        "RSS slope after warm-up": [f"{run.slope:+.2f} MiB/h"],
        "threads after warm-up and at the end": [f"{settled.threads}, {last.threads}"],
        "open files after warm-up and at the end": [f"{settled.files}, {last.files}"],
        "drift of the frames' p99, last third against first": [f"{run.drift:+.1%}"],
        "broken bounds": run.broken() or ["none"],
    }
    lines = [f"| {name} | {'; '.join(values)} |" for name, values in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="A soak of one backend, as a Markdown table.")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--model", default="retinaface_mobilenet025", help="name or bundle folder")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--fps", type=float, default=10.0, help="frames a second at most")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with Detector(args.backend, model=args.model, threads=1) as detector:
        run = soak(detector, args.minutes * 60, args.fps)
        print(
            f"{host().cpu}, Python {platform.python_version()}, OpenCV {cv2.__version__}, "
            f"{detector.explain().backend}, one thread.\n"
        )
        print(table(run))
    return 1 if run.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
