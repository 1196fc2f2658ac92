"""The samples run as a newcomer runs them: in a process of their own, without a display."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector

SAMPLES = Path(__file__).parents[1] / "samples"
BUNDLE = Path(__file__).parents[1] / "edgeface" / "models" / "retinaface_mobilenet025"


def run(name: str, *arguments: object, code: int = 0, cwd: Path | None = None) -> str:
    """Run a sample and return what it printed on stdout, or on stderr where it must fail."""
    environment = {key: os.environ[key] for key in os.environ if "DISPLAY" not in key}
    done = subprocess.run(
        [sys.executable, SAMPLES / name, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(scope="session")
def gif(data: Path) -> Path:
    """A teacher and pupils, in every frame."""
    return data / "video" / "classroom.gif"


def test_every_sample_is_short_and_tested() -> None:
    tests = Path(__file__).read_text()
    for sample in SAMPLES.glob("*.py"):
        assert f'"{sample.name}"' in tests, sample.name
        assert len(sample.read_text().splitlines()) <= 80, sample.name


def test_quickstart(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    printed = run("quickstart.py", cwd=tmp_path)
    assert "model       retinaface_mobilenet025" in printed
    assert printed.count("score 0.") + printed.count("score 1.") == 1
    assert cv2.imread(str(tmp_path / "faces.jpg")).shape == (512, 512, 3)


def test_onnx_minimal_agrees_with_the_detector(
    astronaut: NDArray[np.uint8], tmp_path: Path
) -> None:
    scene = np.hstack([astronaut, astronaut[:, ::-1]])[:500, :1000]
    cv2.imwrite(str(tmp_path / "two.ppm"), scene)
    rows = [
        row.split() for row in run("onnx_minimal.py", BUNDLE, tmp_path / "two.ppm").splitlines()
    ]
    faces = Detector("onnxruntime", precision="fp32", input_size=None)(scene)
    assert len(rows) == len(faces) >= 2
    printed = np.array(rows, np.float32)
    np.testing.assert_allclose(printed[:, :4], faces.boxes, atol=0.02)
    np.testing.assert_allclose(printed[:, 4], faces.scores, atol=1e-3)
    np.testing.assert_allclose(printed[:, 5:], faces.landmarks.reshape(-1, 10), atol=0.02)


def test_opencv_loop(gif: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "last.png"
    printed = run("opencv_loop.py", gif, "--frames", 4, "--out", drawn).splitlines()
    assert all(re.match(rf"{n}: [1-9] faces, ", line) for n, line in enumerate(printed[:4], 1))
    assert printed[4].startswith("4 frames, median ")
    assert cv2.imread(str(drawn)).shape == (270, 480, 3)


def test_opencv_loop_says_what_it_cannot_open() -> None:
    told = run("opencv_loop.py", "videotestsrc ! no-such-element ! appsink", code=1)
    assert "cannot open videotestsrc" in told


def test_batch_folder_records_broken_pictures(astronaut: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "deeper" / "astronaut.png"), astronaut)
    cv2.imwrite(str(tmp_path / "in" / "empty.jpg"), np.full((90, 90, 3), 128, np.uint8))
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    run("batch_folder.py", tmp_path / "in", "-o", tmp_path / "faces.jsonl", code=1)
    rows = [json.loads(line) for line in (tmp_path / "faces.jsonl").read_text().splitlines()]
    names = [Path(row["file"]).name for row in rows]
    assert names == ["broken.jpg", "astronaut.png", "empty.jpg"]
    assert "error" in rows[0]
    assert [len(row["faces"]) for row in rows[1:]] == [1, 0]
