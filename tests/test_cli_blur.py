"""``edgeface blur``: no face is left, sound is kept, and what breaks leaves whole files behind."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.cli import blur, drawing
from edgeface.cli.main import main
from edgeface.video import Video

Image = NDArray[np.uint8]
FRAMES = 14
# A stand-in for ffmpeg: notes how it was called, and copies the video with a mark at its end.
FFMPEG = """#!/bin/sh
echo "$@" >> "{log}"
{first}
for last; do :; done
while [ "$1" != "-i" ]; do shift; done
cat "$2" > "$last" && printf sound >> "$last"
"""


@pytest.fixture
def photo(tmp_path: Path, astronaut: Image) -> Path:
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), astronaut)
    return path


@pytest.fixture
def clip(tmp_path: Path, astronaut: Image) -> Path:
    """At 10 Hz: the astronaut, shifted by 4 pixels a frame; frames 5 and 6 are plain grey."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    for index in range(FRAMES):
        image = astronaut[0:240, 100 - 4 * index : 420 - 4 * index]
        writer.write(np.full_like(image, 128) if index in (5, 6) else image)
    writer.release()
    return path


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def face_boxes(image: Image) -> NDArray[np.float32]:
    with Detector("onnxruntime") as detector:
        return detector(image).boxes


@pytest.mark.parametrize("kind", ["gaussian", "solid"])
def test_picture(
    kind: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "safe.png"
    options = ["--kind", kind, "--score-threshold", "0.4"]
    assert main(["blur", str(photo), "-o", str(out), *options]) == 0
    assert capsys.readouterr().out == f"{photo}: 1 face blurred\n"
    before, after = cv2.imread(str(photo)), cv2.imread(str(out))
    assert len(face_boxes(after)) == 0
    x1, y1, x2, y2 = face_boxes(before)[0].astype(int)
    assert (before != after)[y1:y2, x1:x2].mean() > 0.9
    assert np.array_equal(before[400:], after[400:])
    assert files_in(out.parent) == {"safe.png"}


def test_folder_goes_on_after_a_bad_file(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photo.parent / "broken.jpg").write_bytes(b"no picture")
    assert main(["blur", str(photo.parent), "-o", str(tmp_path / "out")]) == 1
    output = capsys.readouterr()
    assert output.out.endswith("2 inputs, 1 failed\n")
    assert output.err.startswith(f"edgeface: error: {photo.parent / 'broken.jpg'}: expected ")
    assert files_in(tmp_path / "out") == {"photo.png"}


@pytest.mark.usefixtures("no_ffmpeg")
def test_video_covers_the_frames_in_which_no_face_is_found(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "safe.mp4"
    assert main(["blur", str(clip), "-o", str(out), "--kind", "solid"]) == 0
    output = capsys.readouterr()
    assert output.out == f"{clip}: {FRAMES} frames blurred\n"
    assert "sound" in output.err
    assert "install ffmpeg" in output.err
    assert files_in(out.parent) == {"safe.mp4"}

    video = Video(out)
    assert video.fps == 10
    frames = list(video)
    assert len(frames) == FRAMES
    with Detector("onnxruntime") as detector:
        originals = list(Video(clip))
        missed = [index for index, image in enumerate(originals) if len(detector(image)) == 0]
        assert missed == [5, 6]
        first = detector(originals[0]).boxes[0]
        for index, image in enumerate(frames):
            assert len(detector(image)) == 0
            middle = round((first[0] + first[2]) / 2) + 4 * index
            face = image[round(first[1]) : round(first[3]), middle - 20 : middle + 20]
            assert face.mean() < 12, index


@pytest.mark.parametrize("fails", ["", '[ "$(wc -l < "{log}")" = 1 ] && exit 1'])
def test_sound_is_kept_where_ffmpeg_exists(
    fails: str,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The sound as it is; where MP4 cannot hold that, converted to AAC."""
    log, out = tmp_path / "log", tmp_path / "out" / "safe.mp4"
    make_ffmpeg(tmp_path, monkeypatch, fails.format(log=log))
    assert main(["blur", str(clip), "-o", str(out)]) == 0
    assert capsys.readouterr().err == ""
    assert out.read_bytes().endswith(b"sound")
    assert len(list(Video(out))) == FRAMES
    calls = log.read_text().splitlines()
    assert ["-c:a aac" in call for call in calls] == ([False, True] if fails else [False])
    assert f"-i file:{clip} -map 0:v -map 1:a? " in calls[0]
    assert " -t 1.400 -c:v copy -c:a copy " in calls[0]
    assert files_in(out.parent) == {"safe.mp4"}


def test_sound_that_ffmpeg_cannot_keep(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_ffmpeg(tmp_path, monkeypatch, "echo nonsense >&2; exit 1")
    out = tmp_path / "out" / "safe.mp4"
    assert main(["blur", str(clip), "-o", str(out)]) == 0
    error = capsys.readouterr().err
    assert error == f"edgeface: warning: {clip}: its sound is dropped, ffmpeg says: nonsense\n"
    assert len(list(Video(out))) == FRAMES
    assert files_in(out.parent) == {"safe.mp4"}


def make_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    program = folder / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(FFMPEG.format(log=folder / "log", first=first))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("no_ffmpeg")
def test_interrupted_video_holds_the_frames_so_far(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(frames: Video, *_: object, **__: object) -> Iterator[Image]:
        yield from itertools.islice(frames, 9)
        raise KeyboardInterrupt

    monkeypatch.setattr(blur, "track", interrupt)
    out = tmp_path / "out" / "safe.mp4"
    assert main(["blur", str(clip), "-o", str(out)]) == 130
    assert capsys.readouterr().err.endswith("edgeface: error: interrupted\n")
    frames = list(Video(out))
    assert 1 <= len(frames) < 9
    with Detector("onnxruntime") as detector:
        assert all(len(detector(image)) == 0 for image in frames)
    assert files_in(out.parent) == {"safe.mp4"}


class Usage(NamedTuple):
    free: int


@pytest.mark.usefixtures("no_ffmpeg")
def test_full_disk(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    room = itertools.chain([1 << 30] * 4, itertools.repeat(drawing.DISK_RESERVE))
    monkeypatch.setattr(drawing.shutil, "disk_usage", lambda _: Usage(next(room)))
    out = tmp_path / "out" / "safe.mp4"
    assert main(["blur", str(clip), "-o", str(out)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("edgeface: error: expected room")
    assert "full after 4 frames" in error
    assert len(list(Video(out))) == 4
    assert files_in(out.parent) == {"safe.mp4"}


@pytest.mark.usefixtures("no_ffmpeg")
def test_old_output_stays_until_the_new_is_whole(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "safe.mp4"
    out.write_bytes(b"old")
    clip.write_bytes(b"no video")
    assert main(["blur", str(clip), "-o", str(out)]) == 1
    assert out.read_bytes() == b"old"


@pytest.mark.usefixtures("no_ffmpeg")
def test_gifs_have_no_sound_to_warn_of(
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gif = clip.rename(clip.with_suffix(".gif"))
    assert main(["blur", str(gif), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""
    assert files_in(tmp_path / "out") == {"clip.gif.mp4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--margin", "-1"], "margin"),
        (["--input-size", "none", "--tile"], "input_size"),
        (["--score-threshold", "2"], "score_threshold"),
    ],
)
def test_wrong_options(
    arguments: list[str],
    message: str,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["blur", str(photo), "-o", str(tmp_path / "out.png"), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert files_in(tmp_path) == {"in/photo.png"}


def test_never_over_the_input(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = photo.read_bytes()
    assert main(["blur", str(photo), "-o", str(photo)]) == 1
    assert "which is an input" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_frames_of_another_size_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with drawing.video_writer(path, 10, 64, 48) as append:
        for size in ((48, 64), (96, 128), (30, 30)):
            append(np.full((*size, 3), 200, np.uint8))
    frames = list(Video(path))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    assert all(abs(frame.mean() - 200) < 5 for frame in frames)
