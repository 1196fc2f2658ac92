"""``edgeface detect`` and the door that it stands behind."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import edgeface
from edgeface.cli import detect, options
from edgeface.cli.main import main
from edgeface.outputs import OUTPUTS
from edgeface.video import Video

LEFT_EYE, RIGHT_EYE = (202, 101), (247, 102)  # of the astronaut, by eye


@pytest.fixture
def photo(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), astronaut)
    return path


@pytest.fixture
def clip(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """Twelve frames at 10 Hz: the astronaut, shifted by 4 pixels a frame; the last is empty."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    for index in range(11):
        writer.write(astronaut[0:240, 100 - 4 * index : 420 - 4 * index])
    writer.write(np.zeros((240, 320, 3), np.uint8))
    writer.release()
    return path


def files_in(folder: Path) -> set[str]:
    """Every file, hidden ones included: half-written files would show."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only line on stderr, an edgeface error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("edgeface: error: ")
    return lines[0]


def test_picture(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    outputs = ["--out", f"{out}/a.jpg", "--json", f"{out}/a.json", "--csv", f"{out}/a.csv"]
    assert main(["detect", str(photo), *outputs]) == 0
    line = capsys.readouterr().out
    assert re.fullmatch(rf"{photo}: 1 face, best [01]\.\d{{3}}, \d+\.\d ms\n", line)

    (record,) = json.loads((out / "a.json").read_text())
    assert (record["file"], record["width"], record["height"]) == (str(photo), 512, 512)
    (face,) = record["faces"]
    assert np.allclose(face["landmarks"]["left_eye"], LEFT_EYE, atol=8)
    assert np.allclose(face["landmarks"]["right_eye"], RIGHT_EYE, atol=8)

    (row,) = csv.DictReader((out / "a.csv").open())
    assert row["file"] == str(photo)
    assert row["frame"] == ""
    assert [float(row[name]) for name in ("x1", "y1", "x2", "y2")] == face["box"]
    assert float(row["score"]) == face["score"]
    assert [float(row["nose_x"]), float(row["nose_y"])] == face["landmarks"]["nose"]

    drawn, image = cv2.imread(str(out / "a.jpg")), cv2.imread(str(photo))
    x1, y1, x2, _ = (round(value) for value in face["box"])
    change = np.abs(drawn.astype(int) - image).max(axis=2)
    assert change[y1, (x1 + x2) // 2] > 60
    assert change[300:].mean() < 5
    assert files_in(out) == {"a.jpg", "a.json", "a.csv"}


def test_options_reach_the_detector(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(photo), "--score-threshold", "1"]) == 0
    assert ": no face, " in capsys.readouterr().out
    size = ["--input-size", "320x256", "--threads", "1", "--backend", "onnxruntime"]
    assert main(["detect", str(photo), *size, "--precision", "fp32"]) == 0
    assert ": 1 face, " in capsys.readouterr().out
    assert main(["detect", str(photo), "--nms-threshold", "1", "--max-faces", "3"]) == 0
    assert ": 3 faces, " in capsys.readouterr().out


def test_options_of_use_reach_the_detector(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, found in (
        (["--min-face", "60"], "1 face"),
        (["--min-face", "300"], "no face"),
        (["--roi", "150,20,200,200"], "1 face"),
        (["--roi", "300,300,200,200"], "no face"),
        (["--tile", "--input-size", "320"], "1 face"),
    ):
        assert main(["detect", str(photo), *flags]) == 0
        assert f": {found}, " in capsys.readouterr().out, flags


@pytest.mark.parametrize(
    ("text", "size"), [("640", 640), ("640x480", (640, 480)), ("none", None), ("None", None)]
)
def test_input_size(text: str, size: int | tuple[int, int] | None) -> None:
    assert options.input_size(text) == size


def test_sample_is_the_astronaut(photo: Path, tmp_path: Path) -> None:
    assert main(["detect", str(photo), "--sample", "--json", str(tmp_path / "a.json")]) == 0
    file, sample = json.loads((tmp_path / "a.json").read_text())
    assert sample.pop("file") == "astronaut.png"
    assert file.pop("file") == str(photo)
    assert sample == file


def test_folder_goes_on_after_a_bad_file(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = photo.parent, tmp_path / "out"
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "deep").mkdir()
    shutil.copy(photo, folder / "deep" / "photo.png")

    assert main(["detect", str(folder), "--out", str(out), "--json", f"{out}/a.json"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith(f"edgeface: error: {folder / 'broken.jpg'}: expected ")
    assert len(output.err.splitlines()) == 1
    assert output.out.endswith("2 inputs, 1 failed\n")
    assert files_in(out) == {"photo.png", "a.json"}
    broken, good = json.loads((out / "a.json").read_text())
    assert "whole picture" in broken["error"]
    assert len(good["faces"]) == 1

    (folder / "broken.jpg").unlink()
    again = tmp_path / "again"
    assert main(["detect", str(folder), "--recursive", "--out", str(again)]) == 0
    assert files_in(again) == {"photo.png", "deep/photo.png"}


def test_unknown_suffix_is_read_and_drawn_as_png(photo: Path, tmp_path: Path) -> None:
    bare = photo.rename(photo.with_name("photo.dat"))
    assert main(["detect", str(bare), "--out", str(tmp_path / "out")]) == 0
    assert files_in(tmp_path / "out") == {"photo.dat.png"}


def make_truncated(photo: Path) -> Path:
    path = photo.with_name("cut.jpg")
    _, data = cv2.imencode(".jpg", cv2.imread(str(photo)))
    path.write_bytes(data[: len(data) // 2].tobytes())
    return path


def make_text(photo: Path) -> Path:
    path = photo.with_name("text.jpg")
    path.write_text("no picture")
    return path


def make_empty(photo: Path) -> Path:
    path = photo.with_name("empty.png")
    path.touch()
    return path


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda photo: photo.with_name("gone.jpg"), "does not exist"),
        (make_truncated, "truncated or damaged picture of 512x512"),
        (make_text, "no known picture format"),
        (make_empty, "the file is empty"),
    ],
    ids=["missing", "truncated", "text", "empty"],
)
def test_bad_picture(
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Path],
    expected: str,
) -> None:
    bad, out = make(photo), tmp_path / "out"
    assert main(["detect", str(bad), "--out", f"{out}/a.png", "--csv", f"{out}/a.csv"]) == 1
    error = error_of(capsys)
    assert str(bad) in error
    assert expected in error
    assert files_in(out) == {"a.csv"}
    assert len((out / "a.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--backend", "nope"], "'onnxruntime', got 'nope'"),
        (["--model", "nope"], "retinaface_mobilenet025"),
        (["--precision", "nope"], "'fp32'"),
        (["--score-threshold", "1.5"], "got 1.5"),
        (["--nms-threshold", "-1"], "got -1"),
        (["--max-faces", "0"], "got 0"),
        (["--min-face", "0"], "got 0"),
        (["--roi", "0,0,0,10"], "(0, 0, 0, 10)"),
        (["--threads", "0"], "got 0"),
        (["--input-size", "0"], "got 0"),
        (["--input-size", "100x100"], "(128, 128)"),
    ],
)
def test_bad_option(
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: str,
) -> None:
    out = tmp_path / "out"
    outputs = ["--out", f"{out}/a.png", "--json", f"{out}/a.json"]
    assert main(["detect", str(photo), *outputs, *options]) == 1
    assert expected in error_of(capsys)
    assert files_in(out) == set()


def test_missing_extra_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    assert main(["detect", "--sample"]) == 1
    assert "pip install 'edgeface[samples]'" in error_of(capsys)


@pytest.mark.parametrize("option", ["--out", *(f"--{name}" for name in OUTPUTS)])
def test_unwritable_output_is_refused_before_work(
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    monkeypatch.setattr(detect, "open_detector", lambda _: pytest.fail("work was begun"))
    assert main(["detect", str(photo), option, f"{photo}/below/a.png"]) == 1
    error = error_of(capsys)
    assert f"expected {option} to name a file that can be written" in error
    assert str(photo) in error


def test_disk_trouble_is_one_line(
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, _: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("edgeface.outputs.base.write_atomic", full)
    assert main(["detect", str(photo), "--json", str(tmp_path / "a.json")]) == 1
    assert "No space left on device" in error_of(capsys)


@pytest.mark.parametrize(
    ("inputs", "out", "expected"),
    [
        (["in/photo.png"], "in/photo.png", "which is an input"),
        (["in"], "in", "which is an input"),
        (["in/photo.png", "other/photo.png"], "out", "another drawing"),
        (["in/photo.png"], "out/a.txt", "to end in .bmp"),
        (["clip.mp4"], "out/a.png", "to end in .mp4"),
        (["empty"], "out", "expected pictures or videos"),
    ],
)
def test_bad_plan_writes_nothing(
    photo: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    inputs: list[str],
    out: str,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copytree("in", "other")
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    assert main(["detect", *inputs, "--out", out]) == 1
    assert expected in error_of(capsys)
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before


def test_video(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    outputs = ["--out", f"{out}/a.mp4", "--json", f"{out}/a.json", "--csv", f"{out}/a.csv"]
    assert main(["detect", str(clip), *outputs]) == 0
    line = capsys.readouterr().out
    found = r"12 frames, at most 1 face in one, best [01]\.\d{3}"
    assert re.fullmatch(rf"{clip}: {found}, \d+\.\d ms a frame\n", line)

    (record,) = json.loads((out / "a.json").read_text())
    assert (record["width"], record["height"], record["fps"]) == (320, 240, 10)
    assert [frame["frame"] for frame in record["frames"]] == list(range(12))
    assert [len(frame["faces"]) for frame in record["frames"]] == [1] * 11 + [0]
    eyes = [frame["faces"][0]["landmarks"]["left_eye"] for frame in record["frames"][:11]]
    expected = [(LEFT_EYE[0] - 100 + 4 * index, LEFT_EYE[1]) for index in range(11)]
    assert np.allclose(eyes, expected, atol=8)

    rows = list(csv.DictReader((out / "a.csv").open()))
    assert [int(row["frame"]) for row in rows] == list(range(11))

    with Video(out / "a.mp4") as drawn, Video(clip) as original:
        assert (drawn.width, drawn.height, drawn.fps) == (320, 240, 10)
        changes = [
            (np.abs(one.astype(int) - other).max(axis=2) > 60).sum()
            for one, other in zip(drawn, original, strict=True)
        ]
    assert len(changes) == 12
    assert min(changes[:11]) > 100
    assert changes[11] == 0
    assert files_in(out) == {"a.mp4", "a.json", "a.csv"}


def test_video_of_odd_size_and_no_face(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "grey.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (101, 75))
    for _ in range(3):
        writer.write(np.full((75, 101, 3), 90, np.uint8))
    writer.release()
    assert main(["detect", str(clip), "--out", str(tmp_path / "out")]) == 0
    assert ": 3 frames, no face, " in capsys.readouterr().out
    assert files_in(tmp_path / "out") == {"grey.avi.mp4"}
    with Video(tmp_path / "out" / "grey.avi.mp4") as drawn:
        assert len(list(drawn)) == 3


def test_bad_video_is_reported(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:-200])
    out = tmp_path / "out"
    assert main(["detect", str(cut), str(clip), "--out", str(out)]) == 1
    assert str(cut) in error_of(capsys)
    assert files_in(out) == {"clip.mp4"}


def test_interrupted_video_leaves_nothing(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> Iterator[NDArray[np.uint8]]:
        yield np.zeros((240, 320, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(detect, "track", interrupt)
    out = tmp_path / "out"
    assert main(["detect", str(clip), "--out", f"{out}/a.mp4", "--json", f"{out}/a.json"]) == 130
    assert files_in(out) == set()


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["detect"],
        ["detect", "a.jpg", "--input-size", "big"],
        ["detect", "a.jpg", "--roi", "1,2"],
        ["nope"],
    ],
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert "usage: edgeface" in capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--help"], ["--version"], ["detect", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert not stop.value.code
    text = capsys.readouterr().out
    for command in ("detect", "eval", "train", "export", "import", "doctor"):
        assert f"\n    {command} " in text
    assert f"edgeface {edgeface.__version__}\n" in text
    assert "edgeface detect --sample --out faces.png" in text


def test_interrupt(
    photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(detect, "detect", interrupt)
    assert main(["detect", str(photo)]) == 130
    assert error_of(capsys) == "edgeface: error: interrupted"


def test_closed_pipe_is_quiet(photo: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edgeface", "detect", photo.name]
    done = subprocess.run(
        command, cwd=photo.parent, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""
