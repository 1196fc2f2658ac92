"""Resident memory of a detector at work, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PICTURE = Path(__file__).parents[1] / "docs/astronaut.jpg"
MEGABYTES = 150
CODE = """
import sys
import cv2
from edgeface import Detector
image = cv2.resize(cv2.imread(sys.argv[2]), (640, 480))
detector = Detector(sys.argv[1], threads=2, score_threshold=0.5)
for _ in range(100):
    assert len(detector(image)) == 1
[line] = [line for line in open("/proc/self/status") if line.startswith("VmRSS")]
print(int(line.split()[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "openvino"])
def test_a_hundred_frames_stay_small(backend: str) -> None:
    """What a board of 512 MB asks for: 640 x 480 at the default long side of 640."""
    pytest.importorskip("openvino" if backend == "openvino" else "numpy")
    command = [sys.executable, "-c", CODE, backend, str(PICTURE)]
    for _ in range(2 if backend == "openvino" else 1):  # the first start compiles, and keeps that
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    print(f"{backend}: {done.stdout.strip()} MB resident after 100 frames")
    assert int(done.stdout) <= MEGABYTES
