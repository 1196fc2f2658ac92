"""Calibration sets: the draw, its manifest, and what cannot be drawn from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.calibration.draw import LEAST, NO_FACE, draw
from edgeface.calibration.subset import (
    CalibrationSet,
    Preprocess,
    check_fits,
    read_manifest,
    write_manifest,
)
from edgeface.cli.main import main
from edgeface.errors import CalibrationError, InvalidOptionError
from edgeface.faces import Faces
from edgeface.preprocess import letterbox

HOW = Preprocess(64, 32, (104, 117, 123))
NONE = Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
ONE = Faces(np.float32([[4, 4, 24, 24]]), np.float32([0.9]))

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A folder with label.txt: ``make({event: pictures}, faceless=0)``."""

    def make(events: dict[str, int], faceless: int = 0, labels: bool = True) -> Path:
        root, rows = tmp_path / "data", list[str]()
        rng = np.random.default_rng(0)
        names = [
            f"{event}/{event}_{n}.png" for event, count in events.items() for n in range(count)
        ]
        for number, name in enumerate(names):
            path = root / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            level = rng.integers(20, 230)
            noise = rng.integers(-20, 20, (60, 90, 3)) + level
            cv2.imwrite(str(path), np.clip(noise, 0, 255).astype(np.uint8))
            rows.append(f"# {name}")
            if number >= faceless:
                side = int(rng.choice([6, 12, 20, 40]))
                rows.append(f"5 5 {side} {side}")
        if labels:
            (root / "label.txt").write_text("\n".join(rows) + "\n")
        return root

    return make


def events(calibration: CalibrationSet) -> Counter[str]:
    return Counter(picture.name.split("/")[1] for picture in calibration.pictures)


def test_the_draw_is_even_over_events_and_repeats(make: Make) -> None:
    data = make({"a": 60, "b": 12, "c": 12})
    first = draw(data, HOW, images=30).calibration
    assert events(first) == {"a": 10, "b": 10, "c": 10}
    assert draw(data, HOW, images=30).calibration == first
    other = draw(data, HOW, images=30, seed=1).calibration
    assert other.pictures != first.pictures
    assert other.digest != first.digest
    random = draw(data, HOW, images=60, strategy="random").calibration
    assert events(random)["a"] > 35


def test_the_draw_is_even_over_sizes_and_brightness(make: Make) -> None:
    drawn = draw(make({"a": 200}), HOW, images=40)
    assert len(drawn.cells) >= 8
    assert max(drawn.cells.values()) <= 5


def test_frames_are_the_detectors(make: Make) -> None:
    data = make({"a": 20})
    calibration = draw(data, HOW, images=16).calibration
    frame = calibration[3]
    picture = cv2.imread(str(data / calibration.pictures[3].name))
    assert picture is not None
    expected, _ = letterbox(picture, 64, stride=32, pad_value=HOW.pad_value)
    assert frame.shape == (1, 64, 64, 3)
    assert np.array_equal(frame, expected)
    assert len(list(calibration)) == len(calibration) == 16
    assert len(calibration[:5]) == 5
    assert calibration[:5].digest != calibration.digest
    assert calibration.resized((96, 64))[0].shape == (1, 64, 96, 3)


def test_pictures_alone_are_sorted_by_what_the_model_finds(make: Make) -> None:
    data = make({"a": 20, "b": 20}, labels=False)
    drawn = draw(data, HOW, lambda image: ONE if image.mean() > 60 else NONE, images=20)
    assert events(drawn.calibration) == {"a": 10, "b": 10}
    assert {size for _, size, _ in drawn.cells} <= {NO_FACE, 0}
    unknown = draw(data, HOW, images=20)
    assert {size for _, size, _ in unknown.cells} == {None}


def test_bad_data_is_told(make: Make) -> None:
    data = make({"a": 24}, faceless=20)
    with pytest.raises(InvalidOptionError, match="at least 16 calibration images, got 3"):
        draw(data, HOW, images=3)
    with pytest.raises(InvalidOptionError, match="got 'best'"):
        draw(data, HOW, strategy="best")
    with pytest.raises(CalibrationError, match=r"expected 300 calibration pictures .* got 24"):
        draw(data, HOW)
    with pytest.raises(CalibrationError, match="without a face"):
        draw(data, HOW, images=24)


def test_unreadable_pictures_are_left_out_and_named(make: Make) -> None:
    data = make({"a": LEAST + 2})
    (data / "images/a/a_4.png").write_bytes(b"no picture")
    drawn = draw(data, HOW, images=LEAST)
    assert len(drawn.skipped) == 1
    assert drawn.skipped[0].startswith("images/a/a_4.png: ")
    with pytest.raises(CalibrationError, match=f"got {LEAST + 1} and 1 that cannot be read"):
        draw(data, HOW, images=LEAST + 2)


def test_a_manifest_reads_back(make: Make, tmp_path: Path) -> None:
    calibration = draw(make({"a": 20}), HOW, images=16).calibration
    path = tmp_path / "lists" / "calibration.json"
    write_manifest(calibration, path)
    again = read_manifest(path)
    assert again.digest == calibration.digest
    assert np.array_equal(again[0], calibration[0])
    check_fits(again, HOW)
    with pytest.raises(CalibrationError, match="stride 128"):
        check_fits(again, Preprocess(64, 128, (104, 117, 123)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3, "schema": 9}, "schema 9"),
        ({"pictures": {"x.png": "0"}}, "digest is of another content"),
        ({"preprocess": None}, "TypeError"),
    ],
)
def test_a_damaged_manifest_is_refused(
    change: dict[str, object], message: str, make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "calibration.json"
    write_manifest(draw(make({"a": 20}), HOW, images=16).calibration, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CalibrationError, match=message):
        read_manifest(path)
    with pytest.raises(CalibrationError, match="No such file"):
        read_manifest(tmp_path / "nonesuch.json")


def test_a_changed_picture_is_refused(make: Make) -> None:
    data = make({"a": 20})
    calibration = draw(data, HOW, images=16).calibration
    path = data / calibration.pictures[0].name
    path.write_bytes((data / calibration.pictures[1].name).read_bytes())
    with pytest.raises(CalibrationError, match="as it was drawn"):
        calibration[0]
    path.unlink()
    with pytest.raises(CalibrationError, match="draw again"):
        calibration[0]


def test_the_command_draws(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make({"a": 20, "b": 20})
    (data / "images/a/a_0.png").write_bytes(b"no picture")
    path = tmp_path / "calibration.json"
    options = ["--model", "retinaface_mobilenet025", "--frame-size", "64", "-o", str(path)]
    assert main(["calibrate", "--data", str(data), "--images", "20", *options]) == 0
    printed = capsys.readouterr()
    assert f"20 pictures, digest {read_manifest(path).digest}" in printed.out
    assert "left out images/a/a_0.png" in printed.err
    before = path.read_bytes()
    assert main(["calibrate", "--data", str(data), *options]) == 1
    assert "expected 300 calibration pictures" in capsys.readouterr().err
    assert path.read_bytes() == before
