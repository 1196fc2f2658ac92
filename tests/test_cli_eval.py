"""``edgeface eval``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.cli.main import main

MakeWider = Callable[..., Path]
ASTRONAUT = {("0--A", "astronaut"): [(178, 54, 93, 125, 1, 1, 1)]}
LANDMARKS = "202 103 1 248 104 1 224 129 1 202 140 1 244 142 1"  # of the astronaut, by eye


@pytest.fixture
def portrait(make_wider: MakeWider, astronaut: NDArray[np.uint8]) -> Path:
    """A validation set of one picture with one face."""
    return make_wider(picture=astronaut, faces=ASTRONAUT)


@pytest.fixture
def someones(make_wider: MakeWider, tmp_path: Path) -> tuple[Path, Path]:
    """The small dataset, and another detector's predictions: two hits, a miss, a false alarm."""
    folder = tmp_path / "predictions"
    for name, rows in {
        "0--A/a_1": ["10 20 30 40 0.9", "70 60 20 10 0.8"],
        "0--A/a_2": [],
        "1--B/b_1": ["0 0 20 30 0.3"],
    }.items():
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([path.stem, str(len(rows)), *rows]) + "\n")
    return make_wider(), folder


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("edgeface: error: ")
    return lines[0]


def test_scores_predictions_by_hand(
    someones: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, predictions = someones
    report = tmp_path / "ap.json"
    arguments = ["--data", str(data), "--predictions", str(predictions), "--json", str(report)]
    assert main(["eval", *arguments]) == 0
    # Easy: recall 1/2 at precision 1, then 2/2 at 2/3. Hard has a third face that is missed.
    output = capsys.readouterr().out
    assert "| easy | medium | hard | mAP@0.5:0.95 |" in output
    assert "| 0.833 | 0.833 | 0.556 |" in output
    assert "| <16 | 1 | 0.000 | 0.000 |" in output
    assert "| 16–32 | 1 | 1.000 | 0.000 |" in output
    content = json.loads(report.read_text())
    assert content["predictions"] == str(predictions)
    assert (content["images"], content["faces"]) == (3, 3)
    assert content["easy"] == pytest.approx(5 / 6)
    assert content["hard"] == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)


def test_limit_scores_fewer_pictures(
    someones: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, predictions = someones
    arguments = ["--data", str(data), "--predictions", str(predictions), "--limit", "1"]
    assert main(["eval", *arguments]) == 0
    assert "Pictures: 1; faces of the hard subset: 2" in capsys.readouterr().out


@pytest.mark.parametrize("size", [["--long-side", "320"], ["--original"]])
def test_model_finds_the_face_and_its_saved_predictions_score_the_same(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: list[str]
) -> None:
    saved, report = tmp_path / "saved", tmp_path / "ap.json"
    arguments = ["--data", str(portrait), "--backend", "onnxruntime", "--threads", "1", *size]
    outputs = ["--save-predictions", str(saved), "--json", str(report)]
    assert main(["eval", *arguments, *outputs]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("retinaface_mobilenet025 int8 · ")
    assert "onnxruntime (" in printed
    content = json.loads(report.read_text())
    assert content["size"] == ("original size" if size == ["--original"] else "long side 320")
    assert (content["easy"], content["medium"], content["hard"]) == (1, 1, 1)
    assert content["map"] > 0.4

    assert main(["eval", "--data", str(portrait), "--predictions", str(saved)]) == 0
    assert capsys.readouterr().out.split("\n\n", 1)[1] == printed.split("\n\n", 1)[1]


def test_label_file_gives_the_landmark_error(
    tmp_path: Path, astronaut: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels/images").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "labels/images/a.png"), astronaut)
    label = f"# a.png\n178 54 93 125 {LANDMARKS} 1\n"
    (tmp_path / "labels/label.txt").write_text(label)
    report = tmp_path / "nme.json"
    arguments = ["--data", str(tmp_path / "labels"), "--backend", "onnxruntime"]
    assert main(["eval", *arguments, "--json", str(report)]) == 0
    assert "median NME" in capsys.readouterr().out
    content = json.loads(report.read_text())
    assert (content["images"], content["faces"], content["found"]) == (1, 1, 1)
    assert 0.001 < content["median"] < 0.08


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval"],
        ["eval", "--data", "x", "--long-side", "640", "--original"],
        ["eval", "--data", "x", "--long-side", "large"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "0"], "limit"),
        (["--predictions", "nowhere"], "count 0"),
        (["--predictions", "a", "--save-predictions", "b"], "both"),
        (["--model", "nonesuch"], "nonesuch"),
        (["--backend", "abacus"], "abacus"),
        (["--precision", "fp7"], "fp7"),
        (["--long-side", "-1"], "input_size"),
        (["--threads", "0"], "threads"),
        (["--json", "."], "--json"),
    ],
)
def test_errors_exit_with_1(
    make_wider: MakeWider,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert main(["eval", "--data", str(make_wider()), *arguments]) == 1
    assert message in error_of(capsys)


def test_missing_data_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--data", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in error_of(capsys)


def test_predictions_do_not_go_with_landmark_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "label.txt").write_text("")
    assert main(["eval", "--data", str(tmp_path), "--predictions", "x"]) == 1
    assert "label.txt" in error_of(capsys)


@pytest.mark.parametrize(
    ("size", "least"),
    [
        (["--long-side", "640"], (0.85, 0.78, 0.56)),
        pytest.param(["--original"], (0.80, 0.78, 0.62), marks=pytest.mark.slow),
    ],
)
def test_shipped_model_keeps_its_promise(
    data: Path, tmp_path: Path, size: list[str], least: tuple[float, float, float]
) -> None:
    report = tmp_path / "ap.json"
    arguments = ["--data", str(data / "wider/dev"), "--backend", "onnxruntime", *size]
    assert main(["eval", *arguments, "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    assert content["images"] == 358
    reached = (content["easy"], content["medium"], content["hard"])
    assert all(one >= bound for one, bound in zip(reached, least, strict=True)), reached
