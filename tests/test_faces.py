from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from edgeface.errors import InvalidOptionError, MissingDependencyError
from edgeface.faces import LANDMARK_NAMES, Face, Faces


def make(count: int = 3) -> Faces:
    boxes = np.arange(count * 4).reshape(count, 4) * [1, 1, 2, 2] + [0, 0, 10, 10]
    landmarks = np.arange(count * 10).reshape(count, 5, 2)
    return Faces(boxes, np.linspace(0.9, 0.5, count), landmarks)


def test_columns_are_float32() -> None:
    faces = make()
    assert (faces.boxes.dtype, faces.scores.dtype, faces.landmarks.dtype) == (np.float32,) * 3
    assert (faces.boxes.shape, faces.scores.shape, faces.landmarks.shape) == (
        (3, 4), (3,), (3, 5, 2),
    )  # fmt: skip


def test_sorts_every_column_by_score() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]])
    landmarks = np.arange(30).reshape(3, 5, 2)
    faces = Faces(boxes, [0.2, 0.9, 0.5], landmarks, [7, 8, 9])
    assert faces.scores.tolist() == pytest.approx([0.9, 0.5, 0.2])
    assert faces.boxes[:, 2].tolist() == [2, 3, 1]
    assert faces.landmarks[:, 0, 0].tolist() == [10, 20, 0]
    assert faces.track_ids.tolist() == [8, 9, 7]


def test_empty() -> None:
    faces = Faces.empty()
    assert len(faces) == 0
    assert list(faces) == []
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)
    assert faces.to_dict() == {"faces": []}
    assert len(Faces([], [])) == 0


def test_indexing() -> None:
    faces = make()
    face = faces[1]
    assert isinstance(face, Face)
    assert face.box.tolist() == faces.boxes[1].tolist()
    assert face.score == pytest.approx(0.7)
    assert face.landmarks.shape == (5, 2)
    assert faces[-1].score == pytest.approx(0.5)
    assert [face.score for face in faces] == faces.scores.tolist()
    with pytest.raises(IndexError):
        faces[3]


@pytest.mark.parametrize(
    ("index", "scores"),
    [
        (slice(1, None), [0.7, 0.5]),
        ([2, 0], [0.9, 0.5]),
        (np.array([True, False, True]), [0.9, 0.5]),
    ],
)
def test_selecting(index: object, scores: list[float]) -> None:
    chosen = make()[index]
    assert isinstance(chosen, Faces)
    assert chosen.scores.tolist() == pytest.approx(scores)
    assert len(chosen.boxes) == len(chosen.landmarks) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((7, [1]), "boxes of shape"),
        (([[0, 0, 1]], [1]), r"boxes of shape \(1, 4\).*got \(1, 3\)"),
        (([[0, 0, 1, 1]], [1, 1]), r"scores of shape \(1,\).*got \(2,\)"),
        (([[0, 0, 1, 1]], [1], np.zeros((1, 10))), r"landmarks of shape \(1, 5, 2\)"),
        (([[0, 0, 1, 1]], [np.nan]), "finite scores"),
        (([[0, 0, np.inf, 1]], [1]), "finite boxes"),
        (([[5, 5, 2, 2]], [1]), "x1 <= x2"),
        (([[0, 0, 1, "wide"]], [1]), "numbers in boxes"),
        (([[0, 0, 1, 1]], [1], None, [1, 2]), "track_ids of shape"),
    ],
)
def test_validates(columns: tuple[object, ...], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        Faces(*columns)


def test_json_is_plain_and_complete() -> None:
    faces = Faces([[1.23456, 2, 30, 40]], [0.98765432], np.full((1, 5, 2), 3.5), [4])
    content = json.loads(faces.to_json())
    assert content == faces.to_dict()
    assert content == {
        "faces": [
            {
                "box": [1.235, 2.0, 30.0, 40.0],
                "score": 0.987654,
                "landmarks": {name: [3.5, 3.5] for name in LANDMARK_NAMES},
                "track_id": 4,
            }
        ]
    }
    assert Faces([[0, 0, 1, 1]], [1]).to_dict() == {
        "faces": [{"box": [0.0, 0.0, 1.0, 1.0], "score": 1.0}]
    }


def test_pandas() -> None:
    pytest.importorskip("pandas")
    faces = Faces([[1, 2, 3, 4], [5, 6, 7, 8]], [0.9, 0.8], np.arange(20).reshape(2, 5, 2), [3, 1])
    frame = faces.to_pandas()
    assert frame[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == faces.boxes.tolist()
    assert frame["nose_y"].tolist() == faces.landmarks[:, 2, 1].tolist()
    assert frame["track_id"].tolist() == [3, 1]
    assert len(Faces.empty().to_pandas()) == 0


def test_supervision() -> None:
    pytest.importorskip("supervision")
    faces = make()
    detections = faces.to_supervision()
    assert len(detections) == 3
    assert detections.xyxy.tolist() == faces.boxes.tolist()
    assert detections.confidence.tolist() == faces.scores.tolist()
    assert detections[1].data["landmarks"].shape == (1, 5, 2)
    assert len(Faces.empty().to_supervision()) == 0


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_missing_packages(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgeface\[samples\]'"):
        getattr(make(), f"to_{package}")()


def test_crops_need_landmarks() -> None:
    with pytest.raises(InvalidOptionError, match="landmarks"):
        Faces([[0, 0, 1, 1]], [1]).crop_aligned(np.zeros((9, 9, 3), np.uint8))


def test_repr_says_how_many() -> None:
    assert repr(make()) == "Faces(3, best score 0.900)"
    assert repr(Faces.empty()) == "Faces(0)"
