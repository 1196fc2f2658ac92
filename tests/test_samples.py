"""The samples run as a newcomer runs them: in a process of their own, without a display."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.video import Video

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


@contextmanager
def serving(name: str, *arguments: object) -> Iterator[str]:
    """Run a sample that serves, and give the URL that it prints."""
    command = [sys.executable, SAMPLES / name, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


@pytest.fixture(scope="session")
def gif(data: Path) -> Path:
    """A teacher and pupils, in every frame."""
    return data / "video" / "classroom.gif"


def test_every_sample_is_short_and_tested() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
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


def test_webcam_prints_where_it_has_no_window(gif: Path) -> None:
    lines = run("webcam.py", gif).splitlines()
    assert re.match(r" +\d\.\d s: faces: \d, .+ ids \[", lines[0])
    assert re.match(r"\d+ frames, \d+ dropped, 0 reconnects, ", lines[-1])


def test_webcam_shows_a_window_until_q(gif: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_from_file_location("webcam", SAMPLES / "webcam.py")
    webcam = module_from_spec(spec)
    spec.loader.exec_module(webcam)
    shown = []
    keys = iter([255, 255, ord("q")])
    monkeypatch.setattr(webcam, "why_no_window", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda title, kind: 1.0)
    monkeypatch.setattr(sys, "argv", ["webcam.py", str(gif)])
    webcam.main()
    assert shown == [(270, 480, 3)] * 3


def test_blur_video_leaves_no_face(gif: Path, tmp_path: Path) -> None:
    assert "45 frames" in run("blur_video.py", gif, "-o", tmp_path / "blurred.mp4")
    detector = Detector(score_threshold=0.5)
    with Video(gif) as before, Video(tmp_path / "blurred.mp4") as after:
        pairs = list(zip(before, after, strict=True))[::4]
    found = [(len(detector(old)), len(detector(new))) for old, new in pairs]
    assert all(old >= 3 for old, _ in found)
    assert not any(new for _, new in found)


def test_attendance_counts_each_visit_once(data: Path, tmp_path: Path) -> None:
    couple = data / "video" / "head-pose-face-detection-female-and-male.gif"
    lines = run("attendance.py", couple, "-o", tmp_path / "visits.csv").splitlines()
    with (tmp_path / "visits.csv").open() as file:
        visits = list(csv.DictReader(file))
    assert len(visits) == 2
    assert all(float(visit["last_s"]) - float(visit["first_s"]) >= 0.5 for visit in visits)
    assert lines[-1].startswith("2 visitors; 56 frames, 0 dropped")
    assert sum("visitor " in line for line in lines) == 2


def test_mjpeg_server_streams_pictures(gif: Path) -> None:
    with serving("mjpeg_server.py", gif, "--port", 0) as url:
        with urllib.request.urlopen(url, timeout=60) as page:
            assert b"src=/stream.mjpg" in page.read()
        with urllib.request.urlopen(f"{url}stream.mjpg", timeout=60) as stream:
            assert stream.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
            for _ in range(3):
                assert stream.readline() == b"--frame\r\n"
                assert stream.readline() == b"Content-Type: image/jpeg\r\n"
                length = int(stream.readline().split()[1])
                assert stream.readline() == b"\r\n"
                picture = np.frombuffer(stream.read(length), np.uint8)
                assert cv2.imdecode(picture, cv2.IMREAD_COLOR).shape == (270, 480, 3)
                assert stream.readline() == b"\r\n"


def test_arm_board_prints_json(gif: Path) -> None:
    rows = [json.loads(line) for line in run("arm_board.py", gif, "--frames", 8).splitlines()]
    assert len(rows) == 8
    times = [row["time"] for row in rows]
    assert times == sorted(set(times))
    faces = [face for row in rows for face in row["faces"]]
    assert len(faces) >= 8
    assert all(face["track_id"] >= 1 and len(face["box"]) == 4 for face in faces)


def test_arm_board_previews(gif: Path) -> None:
    with (
        serving("arm_board.py", gif, "--preview", 0) as url,
        urllib.request.urlopen(url, timeout=60) as stream,
    ):
        assert stream.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        for _ in range(2):
            assert stream.readline() == b"--frame\r\n"
            assert stream.readline() == b"Content-Type: image/jpeg\r\n"
            length = int(stream.readline().split()[1])
            assert stream.readline() == b"\r\n"
            picture = np.frombuffer(stream.read(length), np.uint8)
            assert cv2.imdecode(picture, cv2.IMREAD_COLOR).shape == (270, 480, 3)
            assert stream.readline() == b"\r\n"


def test_several_cameras_print_what_changes(gif: Path) -> None:
    printed = run("several_cameras.py", f"door={gif}", f"yard={gif}", "bad=" + __file__)
    events = [json.loads(line) for line in printed.splitlines()]
    assert {event["camera"] for event in events} == {"door", "yard"}
    assert all(event["faces"] >= 1 for event in events if event["seconds"] == 0)
    assert "expected NAME=SOURCE, got 'door'" in run("several_cameras.py", "door", code=2)


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
