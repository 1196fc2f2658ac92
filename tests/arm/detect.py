"""Find the face on the board: ``detect.py PICTURE [BACKEND:PRECISION[:FRAMES]]...``.

Prints the doctor's report, and a line of JSON for each: what ``explain()`` says, the faces,
milliseconds, and the resident memory in MB. One process for all, because starting one is what costs
most under emulation; and probing may take as long as that needs.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

import cv2

from edgeface import Detector
from edgeface.cli.main import main as edgeface
from edgeface.runtimes.base import BACKENDS

LONG_SIDE = 320
PATIENCE = 900.0


def resident_mb() -> float:
    with open("/proc/self/status") as status:  # noqa: PTH123
        [line] = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def find(image: object, backend: str, precision: str, frames: int) -> dict[str, object]:
    threads = None if backend == "auto" else 1
    with Detector(backend, precision=precision, input_size=LONG_SIDE, threads=threads) as detector:
        faces = detector(image)
        started = time.perf_counter()
        for _ in range(frames - 1):
            detector(image)
        seconds = time.perf_counter() - started
        told = detector.explain()
        return {
            "backend": told.backend,
            "precision": told.precision,
            "threads": told.threads,
            "told": str(told),
            "facts": dict(told.facts),
            "boxes": faces.boxes.tolist(),
            "scores": faces.scores.tolist(),
            "landmarks": faces.landmarks.tolist(),
            "frames": frames,
            "ms": round(seconds / max(1, frames - 1) * 1e3),
            "resident_mb": round(resident_mb()),
        }


def main(picture: str, *wanted: str) -> int:
    for name, backend in BACKENDS.items():
        BACKENDS[name] = replace(backend, patience=PATIENCE)
    if code := edgeface(["doctor"]):
        return code
    image = cv2.imread(picture)
    for one in wanted:
        backend, precision, frames = (*one.split(":"), "1")[:3]
        print(json.dumps(find(image, backend, precision, int(frames))), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
