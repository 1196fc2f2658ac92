"""Loading WIDER FACE's validation set, running a detector over it, and prediction files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.errors import DatasetError, EdgeFaceError, InvalidImageError, InvalidOptionError
from edgeface.evaluation.average_precision import Detections
from edgeface.evaluation.predictions import read_predictions, write_predictions
from edgeface.evaluation.run import evaluate, score
from edgeface.evaluation.wider import SUBSETS, WiderImage, load_wider
from edgeface.faces import Faces

MakeWider = Callable[..., Path]
ALL_MATS = ("wider_face_val.mat", *(f"wider_{subset}_val.mat" for subset in SUBSETS))


def perfect(dataset: list[WiderImage]) -> list[Detections]:
    return [
        Detections.sort(image.faces, np.linspace(0.9, 0.5, len(image.faces))) for image in dataset
    ]


def test_reads_faces_as_corners_and_subsets_as_masks(make_wider: MakeWider) -> None:
    images = {image.name: image for image in load_wider(make_wider())}
    assert set(images) == {"a_1", "a_2", "b_1"}
    first = images["a_1"]
    assert (first.event, first.path.name) == ("0--A", "a_1.png")
    assert first.faces.tolist() == [[10, 20, 40, 60], [50, 5, 58, 14]]
    assert first.keep["easy"].tolist() == [True, False]
    assert first.keep["medium"].tolist() == [True, False]
    assert first.keep["hard"].tolist() == [True, True]
    assert images["a_2"].keep["hard"].tolist() == [False]


def test_scores_only_pictures_on_disk_whatever_their_suffix(make_wider: MakeWider) -> None:
    root = make_wider()
    (root / "images/0--A/a_1.png").rename(root / "images/0--A/a_1.JPG")
    (root / "images/0--A/a_2.png").unlink()
    (root / "images/1--B/unknown.png").touch()
    (root / "images/1--B/b_1.txt").touch()
    assert [image.path.name for image in load_wider(root)] == ["a_1.JPG", "b_1.png"]


@pytest.mark.parametrize(
    ("images", "mats"),
    [
        ("images", "ground_truth"),
        ("images", "."),
        ("WIDER_val/images", "wider_face_split"),
        ("WIDER_val/images", "eval_tools/ground_truth"),
    ],
)
def test_accepts_the_official_layouts(make_wider: MakeWider, images: str, mats: str) -> None:
    assert len(load_wider(make_wider(images=images, mats=mats))) == 3


def test_finds_each_mat_file_where_it_is(make_wider: MakeWider) -> None:
    root = make_wider(images="WIDER_val/images", mats="eval_tools/ground_truth")
    (root / "wider_face_split").mkdir()
    source = root / "eval_tools/ground_truth/wider_face_val.mat"
    source.rename(root / "wider_face_split/wider_face_val.mat")
    assert len(load_wider(root)) == 3


def test_limit_spreads_over_the_events(make_wider: MakeWider) -> None:
    root = make_wider()
    assert [image.name for image in load_wider(root, 2)] == ["a_1", "a_2"]
    assert [image.name for image in load_wider(root, 99)] == ["a_1", "a_2", "b_1"]
    with pytest.raises(InvalidOptionError, match="at least 1"):
        load_wider(root, 0)


@pytest.mark.parametrize("missing", ALL_MATS)
def test_names_the_missing_ground_truth(make_wider: MakeWider, missing: str) -> None:
    root = make_wider()
    (root / "ground_truth" / missing).unlink()
    with pytest.raises(DatasetError, match=missing):
        load_wider(root)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), b"x" * 500])
def test_refuses_damaged_ground_truth(make_wider: MakeWider, content: bytes) -> None:
    root = make_wider()
    (root / "ground_truth/wider_hard_val.mat").write_bytes(content)
    with pytest.raises(DatasetError, match=r"wider_hard_val\.mat"):
        load_wider(root)


def test_refuses_ground_truth_of_something_else(make_wider: MakeWider) -> None:
    from scipy.io import savemat

    root = make_wider()
    savemat(root / "ground_truth/wider_easy_val.mat", {"gt_list": np.zeros((1, 1))})
    with pytest.raises(DatasetError, match="official"):
        load_wider(root)


def test_refuses_folders_without_pictures(make_wider: MakeWider, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="images"):
        load_wider(tmp_path / "nowhere")
    root = make_wider()
    for path in root.glob("images/*/*"):
        path.rename(path.with_stem("renamed_" + path.stem))
    with pytest.raises(DatasetError, match="names"):
        load_wider(root)


def test_evaluates_a_callable(make_wider: MakeWider) -> None:
    dataset = load_wider(make_wider())
    truth = iter(dataset)

    def predict(image: NDArray[np.uint8]) -> Faces:
        assert image.dtype == np.uint8
        assert image.shape == (80, 100, 3)
        faces = next(truth).faces
        return Faces(faces.astype(np.float32), np.full(len(faces), 0.5, np.float32))

    report = evaluate(predict, dataset)
    assert (report.images, report.faces) == (3, 3)
    assert (report.easy, report.medium, report.hard, report.map) == pytest.approx((1, 1, 1, 1))
    assert report.to_markdown() == "| 1.000 | 1.000 | 1.000 | 1.000 |"
    assert [(row.label, row.faces) for row in report.recall_by_height] == [
        ("<16", 1), ("16–32", 1), ("32–64", 1), ("64–128", 0), ("≥128", 0)
    ]  # fmt: skip
    assert [row.at_050 for row in report.recall_by_height[:3]] == [1, 1, 1]


def test_report_is_json_without_nan(make_wider: MakeWider) -> None:
    dataset = load_wider(make_wider())
    content = score(perfect(dataset), dataset).to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["recall_by_height"][-1] == {
        "low": 128, "high": None, "faces": 0, "at_002": None, "at_050": None
    }  # fmt: skip


def test_evaluation_reports_unreadable_pictures_and_empty_datasets(make_wider: MakeWider) -> None:
    root = make_wider()
    (root / "images/0--A/a_1.png").write_bytes(b"nothing")
    with pytest.raises(InvalidImageError, match="a_1"):
        evaluate(lambda _: Faces.empty(), load_wider(root))
    with pytest.raises(DatasetError, match="at least one picture"):
        evaluate(lambda _: Faces.empty(), [])


def test_predictions_survive_the_text_format(make_wider: MakeWider, tmp_path: Path) -> None:
    dataset = load_wider(make_wider())
    detections = [
        Detections.sort(dataset[0].faces + 0.25, np.float32([0.02000001, 1 / 3])),
        Detections.sort(np.empty((0, 4)), np.empty(0)),
        Detections.sort(dataset[2].faces[:1], np.array([0.7])),
    ]
    write_predictions(tmp_path / "out", dataset, detections)
    text = (tmp_path / "out/1--B/b_1.txt").read_text().splitlines()
    assert text == ["b_1", "1", "0.000 0.000 20.000 30.000 0.7"]
    back = read_predictions(tmp_path / "out", dataset)
    for one, other in zip(detections, back, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
        assert np.float32(one.scores).tolist() == np.float32(other.scores).tolist()
    assert score(back, dataset).to_dict() == score(detections, dataset).to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b_1\n2\n1 2 3 4 0.5\n", "number of faces"),
        ("b_1\n", "number of faces"),
        ("b_1\n1\n1 2 3 4\n", r"b_1\.txt:3"),
        ("b_1\n1\n1 2 three 4 0.5\n", r"b_1\.txt:3"),
        ("b_1\n1\n1 2 nan 4 0.5\n", "finite"),
        (None, "count 0"),
    ],
)
def test_refuses_malformed_predictions(
    make_wider: MakeWider, tmp_path: Path, text: str | None, message: str
) -> None:
    dataset = [image for image in load_wider(make_wider()) if image.name == "b_1"]
    if text is not None:
        (tmp_path / "1--B").mkdir()
        (tmp_path / "1--B/b_1.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_predictions(tmp_path, dataset)


def test_missing_scipy_names_the_extra(
    make_wider: MakeWider, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    root = make_wider()
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(EdgeFaceError, match=r"edgeface\[train\]"):
        load_wider(root)


def test_official_ground_truth_of_the_shared_pictures(data: Path) -> None:
    dataset = load_wider(data / "wider/dev")
    assert (len(dataset), sum(len(image.faces) for image in dataset)) == (358, 3711)
    counts = [sum(int(image.keep[subset].sum()) for image in dataset) for subset in SUBSETS]
    assert counts == [830, 1476, 2999]
    assert score(perfect(dataset), dataset).hard == pytest.approx(1, abs=1e-3)
