"""Latency on the machine that it runs on, as a row of docs/boards.md.

    python benchmarks/this_board.py [--image PICTURE] [--rounds 50]

Whole calls, picture to faces, at 640 x 480 and 320 x 256, for every backend that is installed, at
its own precision under ``auto`` and at fp32. Calls are interleaved; medians are printed, and what
slowed the board meanwhile. It needs edgeface alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.errors import EdgeFaceError
from edgeface.hardware import host
from edgeface.thermal import read_thermal

SIZES = ((640, 480), (320, 256))
BACKENDS = ("tflite", "onnxruntime", "openvino")
PICTURE = Path(__file__).parents[1] / "docs/astronaut.jpg"


def detectors(threads: int | None) -> dict[tuple[str, tuple[int, int]], Detector]:
    """A detector per backend, precision and size, of those that run here."""
    found: dict[tuple[str, tuple[int, int]], Detector] = {}
    for backend in BACKENDS:
        for precision in ("auto", "fp32"):
            for size in SIZES:
                try:
                    made = Detector(backend, precision=precision, input_size=size, threads=threads)
                except EdgeFaceError:
                    continue
                told = made.explain()
                found.setdefault((f"{backend} {told.precision}", size), made)
    return found


def measure(
    contestants: dict[tuple[str, tuple[int, int]], Detector], image: NDArray[np.uint8], rounds: int
) -> dict[tuple[str, tuple[int, int]], float]:
    """Median milliseconds of each, interleaved; the first rounds warm up."""
    times: dict[tuple[str, tuple[int, int]], list[float]] = {key: [] for key in contestants}
    pictures = {size: cv2.resize(image, size) for size in SIZES}
    for turn in range(-3, rounds):
        for key, detector in contestants.items():
            started = time.perf_counter()
            detector(pictures[key[1]])
            if turn >= 0:
                times[key].append((time.perf_counter() - started) * 1e3)
    return {key: statistics.median(values) for key, values in times.items()}


def table(medians: dict[tuple[str, tuple[int, int]], float], threads: int) -> str:
    """The rows."""
    this = host()
    name = this.board or this.cpu or this.machine
    columns = " | ".join(f"{width} x {height}, ms" for width, height in SIZES)
    lines = [f"| board | backend | threads | {columns} |", "|---" * (3 + len(SIZES)) + "|"]
    for label in dict.fromkeys(label for label, _ in medians):
        cells = " | ".join(f"{medians[label, size]:.1f}" for size in SIZES)
        lines.append(f"| {name} | {label} | {threads} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--image", type=Path, default=PICTURE)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, help="default: as the detector chooses")
    args = parser.parse_args()
    image = np.asarray(cv2.imread(str(args.image)), np.uint8)
    medians = measure(detectors(args.threads), image, args.rounds)
    print(table(medians, args.threads or host().threads))
    print(f"\n{args.rounds} interleaved rounds; {read_thermal()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
