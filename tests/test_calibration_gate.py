"""The gate: what it measures, where it draws the line, and what it says when it refuses."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.calibration.accuracy import (
    Accuracy,
    EvaluationData,
    load_evaluation_data,
    measure,
)
from edgeface.calibration.gate import FLOOR, PUBLISH, Verdict, require
from edgeface.errors import AccuracyError, InvalidOptionError
from edgeface.faces import Faces

pytest.importorskip("torch")

POINTS = np.array([[[12, 30], [35, 30], [25, 40], [15, 50], [35, 50]]], np.float32)
BOX = np.array([[10, 20, 40, 60]], np.float32)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Twenty pictures with one face and its landmarks, and one picture without landmarks."""
    root = tmp_path / "labels"
    (root / "images" / "0--A").mkdir(parents=True)
    points = " ".join(f"{x} {y} 0" for x, y in POINTS[0])
    lines = []
    for number in range(20):
        lines += [f"# 0--A/a_{number}.png", f"10 20 30 40 {points} 1"]
    lines += ["# 0--A/b.png", f"10 20 30 40 {'-1 -1 -1 ' * 5}1"]
    (root / "label.txt").write_text("\n".join(lines))
    for name in (*(f"a_{number}" for number in range(20)), "b"):
        cv2.imwrite(str(root / "images" / "0--A" / f"{name}.png"), np.zeros((80, 100, 3), np.uint8))
    return root


def accuracy(hard: float, *errors: float, easy: float = 0.9) -> Accuracy:
    return Accuracy(easy, 0.8, hard, np.array(errors))


def find_the_face(shift: float) -> Callable[[NDArray[np.uint8]], Faces]:
    return lambda image: Faces(BOX, np.array([0.9], np.float32), POINTS + np.float32(shift))


def test_both_folders_are_measured(make_wider: Callable[..., Path], labels: Path) -> None:
    faces = {("0--A", "a_1"): [(10, 20, 30, 40, 1, 1, 1)]}
    data = load_evaluation_data([make_wider(faces=faces), labels])
    assert (len(data.pictures), len(data.labelled)) == (1, 20)
    result = measure(find_the_face(3.0), data)
    assert (result.easy, result.medium, result.hard) == pytest.approx((1, 1, 1))
    assert result.landmark_error == pytest.approx(np.hypot(3, 3) / np.sqrt(30 * 40), rel=1e-4)
    assert result.to_dict()["landmark_error"] == round(result.landmark_error, 5)
    assert len(data.limit(4).labelled) == 4


def test_calibration_pictures_do_not_judge(make_wider: Callable[..., Path], labels: Path) -> None:
    folders = [make_wider(), labels]
    data = load_evaluation_data(folders, exclude=["a_1.png", "a_3.png"])
    assert not {"a_1.png", "a_3.png"} & {one.image.name for one in data.labelled}
    assert [one.name for one in data.pictures] == ["a_2", "b_1"]


def test_only_held_out_pictures_where_the_folder_was_trained_on(
    make_wider: Callable[..., Path], labels: Path
) -> None:
    from edgeface.training.dataset import held_out

    data = load_evaluation_data([make_wider(), labels], held_out_share=0.5)
    names = [one.image.stem for one in data.labelled]
    assert 0 < len(names) < 20
    assert all(held_out(name, 0.5) for name in names)


@pytest.mark.parametrize("kinds", [("wider",), ("labels",), ("wider", "labels")])
def test_average_precision_and_landmarks_are_both_required(
    kinds: tuple[str, ...], make_wider: Callable[..., Path], labels: Path
) -> None:
    folders = {"wider": make_wider(), "labels": labels}
    seen = [f"a_{number}.png" for number in range(20)] if len(kinds) == 2 else []
    with pytest.raises(InvalidOptionError, match="expected pictures with WIDER FACE's ground"):
        load_evaluation_data([folders[kind] for kind in kinds], exclude=seen)


@pytest.mark.parametrize(
    ("candidate", "published", "accepted"),
    [
        (accuracy(0.6, 0.05, 0.07), True, False),
        (accuracy(0.5941, 0.05, 0.07), True, False),
        (accuracy(0.593, 0.05, 0.07), False, True),
        (accuracy(0.569, 0.05, 0.07), False, False),
        (accuracy(0.6, 0.0524, 0.0734), True, False),
        (accuracy(0.6, 0.0530, 0.0740), False, True),
        (accuracy(0.6, 0.08, 0.08), False, False),
        (accuracy(0.6, np.nan, 0.0700), True, False),
        (accuracy(0.6, np.nan, 0.0740), False, True),
        (accuracy(0.6, np.nan, np.nan), False, False),
        (accuracy(0.6, 0.05, 0.07, easy=0.88), False, True),
    ],
)
def test_the_line_is_drawn_per_subset_and_on_faces_that_both_found(
    candidate: Accuracy, published: bool, accepted: bool
) -> None:
    verdict = Verdict(accuracy(0.6, 0.05, 0.07), candidate)
    assert verdict.within(PUBLISH) == published
    assert verdict.within(FLOOR) == (published or accepted)
    if published:
        assert require(verdict, "int8 for onnx") is False
        return
    with pytest.raises(AccuracyError, match="expected int8 for onnx to keep 99% of fp32's"):
        require(verdict, "int8 for onnx")
    if accepted:
        assert require(verdict, "int8 for onnx", accept_drop=True) is True
    else:
        with pytest.raises(AccuracyError, match="to keep 95% of"):
            require(verdict, "int8 for onnx", accept_drop=True)


def test_a_refusal_carries_its_figures_and_offers_only_what_helps() -> None:
    slight = Verdict(accuracy(0.6, 0.05), accuracy(0.58, 0.05))
    with pytest.raises(AccuracyError, match=r"hard 96\.67%.*error \+0\.00%.*accept-acc") as raised:
        require(slight, "int8 for onnx")
    figures = raised.value.figures
    assert figures["average_precision_of_fp32"] == round(0.58 / 0.6, 5)
    assert figures["quantised"] == {
        "easy": 0.9, "medium": 0.8, "hard": 0.58, "landmark_error": 0.05,
    }  # fmt: skip
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    broken = Verdict(accuracy(0.6, 0.05), accuracy(0.0, np.nan))
    with pytest.raises(AccuracyError, match=r"explain$"):
        require(broken, "int8 for onnx")
    assert broken.to_dict()["landmark_error_of_fp32"] is None


def test_a_subset_without_faces_is_left_out_and_no_face_at_all_never_passes() -> None:
    empty: Any = Accuracy(np.nan, np.nan, 0.6, np.array([0.05]))
    assert Verdict(empty, empty).shares == {"hard": 1.0}
    assert Verdict(empty, empty).within(PUBLISH)
    blind = Accuracy(np.nan, np.nan, 0.0, np.array([0.05]))
    assert not Verdict(blind, blind).within(FLOOR)
    none = Accuracy(np.nan, np.nan, np.nan, np.array([0.05]))
    assert not Verdict(none, none).within(FLOOR)


def test_progress_sees_every_picture(make_wider: Callable[..., Path], labels: Path) -> None:
    data: EvaluationData = load_evaluation_data([make_wider(), labels])
    seen: list[Any] = []
    measure(find_the_face(0), data, lambda items: (seen.append(one) or one for one in items))
    assert len(seen) == 23
