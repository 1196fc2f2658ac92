"""The samples run as a newcomer runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

SAMPLES = Path(__file__).parents[1] / "samples"


def test_quickstart(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    done = subprocess.run(
        [sys.executable, SAMPLES / "quickstart.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "model       retinaface_mobilenet025" in done.stdout
    assert done.stdout.count("score 0.") + done.stdout.count("score 1.") == 1
    assert cv2.imread(str(tmp_path / "faces.jpg")).shape == (512, 512, 3)
