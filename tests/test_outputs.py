"""Writers of detections, read back by the tools that they are for."""

from __future__ import annotations

import csv
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.cli import detect, files
from edgeface.cli.main import main
from edgeface.errors import EdgeFaceError, InvalidImageError, OutputError
from edgeface.faces import LANDMARK_NAMES, Faces
from edgeface.outputs import OUTPUTS, Coco, Csv, Json, JsonLines, Shot, Wider, Yolo

BOXES = np.array([[10, 20, 40, 60], [50, 5, 58, 14]], np.float32)
SCORES = np.array([0.9, 0.6], np.float32)
POINTS = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
TWO = Faces(BOXES, SCORES, POINTS)
NONE = Faces(np.empty((0, 4), np.float32), np.empty(0, np.float32))
TRACKED = Faces(BOXES[:1], SCORES[:1], None, np.array([7]))

PICTURE = Shot("in/deep/a.jpg", TWO, 100, 80, relative=PurePath("deep/a.jpg"))
EMPTY = Shot("in/b.jpg", NONE, 100, 80)
FRAME = Shot("clip.mp4", TRACKED, 100, 80, frame=3, fps=25.0)
BROKEN = InvalidImageError("expected a whole picture")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "faces.jsonl"
    with JsonLines(path) as output:
        output.add(PICTURE)
        output.add(FRAME)
        assert [row["file"] for row in read_lines(path)] == ["in/deep/a.jpg", "clip.mp4"]
        output.fail("broken.jpg", BROKEN)
    picture, frame, broken = read_lines(path)
    assert picture == {"file": "in/deep/a.jpg", "width": 100, "height": 80, **TWO.to_dict()}
    assert (frame["frame"], frame["faces"][0]["track_id"]) == (3, 7)
    assert broken == {"file": "broken.jpg", "error": "expected a whole picture"}


def test_json_lines_go_on_after_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "faces.jsonl"
    for append in (True, True, False):
        with JsonLines(path, append=append) as output:
            output.add(PICTURE)
        length = len(read_lines(path))
        with path.open("a") as file:
            file.write('{"file": "cut')
    assert length == 1
    with JsonLines(path, append=True) as output:
        output.add(EMPTY)
    assert [row["file"] for row in read_lines(path)] == [PICTURE.file, EMPTY.file]


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Refuse to let any file of this process grow above the size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", [JsonLines, Csv])
def test_a_full_disk_leaves_whole_lines(kind: type[JsonLines | Csv], tmp_path: Path) -> None:
    path = tmp_path / "faces"
    written = 0
    with kind(path) as output, disk_of(2000), pytest.raises(OutputError, match=r"faces.*space"):
        while True:
            output.add(PICTURE)
            written += 1
    assert written > 1
    text = path.read_text()
    assert text.endswith("\n")
    if kind is JsonLines:
        assert read_lines(path) == [read_lines(path)[0]] * written
    else:
        assert len(list(csv.DictReader(text.splitlines()))) == 2 * written


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    with Csv(path) as output:
        for shot in (PICTURE, EMPTY, FRAME):
            output.add(shot)
        assert len(path.read_text().splitlines()) == 4
    first, second, tracked = csv.DictReader(path.open())
    assert [float(first[side]) for side in ("x1", "y1", "x2", "y2")] == [10, 20, 40, 60]
    assert [float(second["left_eye_x"]), float(second["right_mouth_y"])] == [10, 19]
    assert [first["frame"], first["track_id"]] == ["", ""]
    assert [tracked["frame"], tracked["track_id"], tracked["nose_x"]] == ["3", "7", ""]


def test_json_groups_the_frames_of_a_video(tmp_path: Path) -> None:
    path = tmp_path / "faces.json"
    frames = [Shot("clip.mp4", NONE, 100, 80, frame=n, fps=25.0) for n in (0, 1, 0)]
    with Json(path) as output:
        for shot in (PICTURE, *frames, FRAME):
            output.add(shot)
        output.fail("broken.jpg", BROKEN)
        assert not path.exists()
    picture, first, again, broken = json.loads(path.read_text())
    assert len(picture["faces"]) == 2
    assert (first["fps"], [frame["frame"] for frame in first["frames"]]) == (25.0, [0, 1])
    assert [frame["frame"] for frame in again["frames"]] == [0, 3]
    assert broken["error"] == "expected a whole picture"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The pictures of the two shots, for tools that look at them."""
    folder = tmp_path / "images"
    for name in ("a.jpg", "b.jpg"):
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((80, 100, 3), np.uint8))
    return folder


def flat(shot: Shot) -> Shot:
    """Return the shot as a file of the top folder."""
    return Shot(PurePath(shot.file).name, shot.faces, shot.width, shot.height, shot.frame)


def test_coco_as_supervision_reads_it(images: Path, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    path = tmp_path / "coco.json"
    with Coco(path) as output:
        output.add(flat(PICTURE))
        output.add(flat(EMPTY))
    dataset = sv.DetectionDataset.from_coco(str(images), str(path))
    assert dataset.classes == ["face"]
    found = {Path(name).name: detections for name, _, detections in dataset}
    np.testing.assert_allclose(found["a.jpg"].xyxy, BOXES)
    assert len(found["b.jpg"]) == 0


def test_coco_keypoints_and_frames(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    with Coco(path) as output:
        output.add(PICTURE)
        output.add(FRAME)
        output.fail("broken.jpg", BROKEN)
    content = json.loads(path.read_text())
    picture, frame = content["images"]
    assert picture == {"id": 1, "file_name": "deep/a.jpg", "width": 100, "height": 80}
    assert (frame["file_name"], frame["video"]) == ("clip_000003.jpg", "clip.mp4")
    first, second, tracked = content["annotations"]
    assert [one["id"] for one in content["annotations"]] == [1, 2, 3]
    assert [one["image_id"] for one in content["annotations"]] == [1, 1, 2]
    assert first["bbox"] == [10, 20, 30, 40]
    assert (first["area"], first["score"], first["num_keypoints"]) == (1200, 0.9, 5)
    assert second["keypoints"] == [v for x, y in POINTS[1].tolist() for v in (x, y, 2)]
    assert tracked["track_id"] == 7
    assert "keypoints" not in tracked
    assert content["categories"][0]["keypoints"] == list(LANDMARK_NAMES)


def test_yolo_as_supervision_reads_it(images: Path, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    labels = tmp_path / "labels"
    with Yolo(labels) as output:
        output.add(flat(PICTURE))
        output.add(flat(EMPTY))
    assert files_in(labels) == {"a.txt", "b.txt"}
    assert (labels / "a.txt").read_text().splitlines()[0] == "0 0.250000 0.500000 0.300000 0.500000"
    (tmp_path / "data.yaml").write_text("names: [face]\nnc: 1\n")
    dataset = sv.DetectionDataset.from_yolo(str(images), str(labels), str(tmp_path / "data.yaml"))
    found = {Path(name).name: detections for name, _, detections in dataset}
    np.testing.assert_allclose(found["a.jpg"].xyxy, BOXES, atol=1e-3)
    assert len(found["b.jpg"]) == 0


def test_wider_as_the_evaluation_reads_it(tmp_path: Path) -> None:
    predictions = pytest.importorskip("edgeface.evaluation.predictions")
    with Wider(tmp_path) as output:
        output.add(PICTURE)
        output.add(FRAME)
    assert files_in(tmp_path) == {"deep/a.txt", "clip_000003.txt"}
    found = predictions._read(tmp_path / "deep" / "a.txt")
    np.testing.assert_allclose(found.boxes, BOXES)
    np.testing.assert_allclose(found.scores, SCORES)


@pytest.mark.parametrize("name", ["json", "coco"])
def test_a_whole_file_does_not_appear_after_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), OUTPUTS[name](tmp_path / "faces") as output:
        output.add(PICTURE)
        raise KeyboardInterrupt
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("name", OUTPUTS)
def test_unwritable_place(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="another place") as caught,
        OUTPUTS[name](tmp_path / "file" / "below") as output,
    ):
        output.add(PICTURE)
    assert isinstance(caught.value, EdgeFaceError)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    shot = Shot("\udce9.jpg", TWO, 100, 80)
    for name, output_type in OUTPUTS.items():
        with output_type(tmp_path / name) as output:
            output.add(shot)
    assert read_lines(tmp_path / "jsonl")[0]["file"] == "\udce9.jpg"
    assert (tmp_path / "csv").read_bytes().splitlines()[1].startswith(b"\xe9.jpg,")
    assert files_in(tmp_path / "yolo") == {"\udce9.txt"}


def test_detect_writes_every_format(
    astronaut: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    cv2.imwrite("in/photo.png", astronaut)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    flags = [part for name in OUTPUTS for part in (f"--{name}", f"out/{name}")]
    assert main(["detect", "in", *flags]) == 1
    assert files_in(tmp_path / "out") == {
        "json", "jsonl", "csv", "coco", "yolo/photo.txt", "wider/photo.txt"
    }  # fmt: skip
    broken, photo = read_lines(tmp_path / "out" / "jsonl")
    assert json.loads((tmp_path / "out" / "json").read_text()) == [broken, photo]
    assert "whole picture" in broken["error"]
    assert len((tmp_path / "out" / "csv").read_text().splitlines()) == 2
    assert len(json.loads((tmp_path / "out" / "coco").read_text())["annotations"]) == 1


def test_interrupted_video_keeps_the_lines_so_far(
    astronaut: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (320, 240))
    for _ in range(3):
        writer.write(astronaut[:240, 100:420])
    writer.release()

    def interrupt(frames: Any, *_: object, **__: object) -> Iterator[NDArray[np.uint8]]:
        yield next(iter(frames))
        raise KeyboardInterrupt

    monkeypatch.setattr(detect, "track", interrupt)
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    assert main(["detect", str(clip), "--jsonl", str(lines), "--csv", str(table)]) == 130
    (row,) = read_lines(lines)
    assert (row["frame"], len(row["faces"])) == (0, 1)
    assert len(list(csv.DictReader(table.open()))) == 1


@pytest.mark.parametrize(
    ("names", "flags", "expected"),
    [
        (["a.jpg"], ["--jsonl", "a.jpg"], "belongs to a.jpg"),
        (["a.jpg"], ["--json", "x", "--csv", "x"], "belongs to --json"),
        (["a.jpg", "a.png"], ["--yolo", "out"], "belongs to a.jpg"),
        (["a.mp4", "a.avi"], ["--wider", "out"], "belongs to a.mp4"),
    ],
)
def test_outputs_that_would_overwrite_are_refused(
    names: list[str],
    flags: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in names:
        Path(name).touch()
    assert main(["detect", *names, *flags]) == 1
    assert expected in capsys.readouterr().err
    assert files_in(tmp_path) == set(names)


def test_a_video_and_its_thumbnail_do_not_collide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").touch()
    Path("a.jpg").touch()
    sources = files.collect(["a.mp4", "a.jpg"], recursive=False, sample=False)
    files.check_outputs({"yolo": Path("out")}, sources)


def test_supervision_gets_every_column() -> None:
    sv = pytest.importorskip("supervision")
    detections = TWO.to_supervision()
    assert isinstance(detections, sv.Detections)
    np.testing.assert_array_equal(detections.xyxy, BOXES)
    np.testing.assert_array_equal(detections.confidence, SCORES)
    np.testing.assert_array_equal(detections.data["landmarks"], POINTS)
    np.testing.assert_array_equal(TRACKED.to_supervision().tracker_id, [7])
    scene = np.zeros((80, 100, 3), np.uint8)
    annotated = sv.BoxAnnotator(thickness=1).annotate(scene.copy(), detections)
    assert annotated[20, 10:41].any()
    assert len(NONE.to_supervision()) == 0
