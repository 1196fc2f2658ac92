"""Label files and the picture cache: what is read, what is reported, what is skipped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.errors import DatasetError
from edgeface.training.cache import build_cache
from edgeface.training.labels import read_labels

POINTS = "12 22 0 28 22 0 20 30 1 14 38 0 26 38 0"
UNLABELLED = " ".join(["-1 -1 -1"] * 5)


def write_picture(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def retinaface_root(folder: Path, labels: str, pictures: tuple[str, ...]) -> Path:
    (folder / "images").mkdir(parents=True)
    for name in pictures:
        write_picture(folder / "images" / name)
    (folder / "label.txt").write_text(labels)
    return folder


def test_retinaface_labels_with_and_without_the_last_column(tmp_path: Path) -> None:
    root = retinaface_root(
        tmp_path,
        f"# 0--Parade/a.png\n10 20 20 24 {POINTS} 1\n1 2 3 4 {UNLABELLED} 0\n"
        f"# b.png\n10 20 20 24 {POINTS}\n1 2 3 4 {POINTS} 0.82\n5 6 7 8\n# c.png\n",
        ("0--Parade/a.png", "b.png", "c.png"),
    )
    labels = read_labels(root)
    first, second, third = labels.annotations
    assert not labels.problems
    assert (first.event, second.event) == ("0--Parade", "")
    np.testing.assert_array_equal(first.boxes, [[10, 20, 30, 44], [1, 2, 4, 6]])
    np.testing.assert_array_equal(
        first.landmarks[0], [[12, 22], [28, 22], [20, 30], [14, 38], [26, 38]]
    )
    assert np.isnan(first.landmarks[1]).all()
    assert first.ignore.tolist() == [False, True]
    assert second.ignore.tolist() == [False, False, False]
    assert np.isnan(second.landmarks[2]).all()
    assert third.boxes.shape == (0, 4)
    assert third.landmarks.shape == (0, 5, 2)


def test_official_layout(tmp_path: Path) -> None:
    write_picture(tmp_path / "WIDER_train/images/0--Parade/a.jpg")
    write_picture(tmp_path / "WIDER_train/images/1--Riot/b.jpg")
    split = tmp_path / "wider_face_split"
    split.mkdir()
    (split / "wider_face_train_bbx_gt.txt").write_text(
        "0--Parade/a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n5 6 7 8 0 0 0 1 0 0\n"
        "1--Riot/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
    )
    labels = read_labels(tmp_path)
    crowd, empty = labels.annotations
    np.testing.assert_array_equal(crowd.boxes, [[1, 2, 4, 6], [5, 6, 12, 14]])
    assert crowd.ignore.tolist() == [False, True]
    assert crowd.lines.tolist() == [3, 4]
    assert len(empty.boxes) == 0
    assert not labels.problems


@pytest.mark.parametrize(
    ("face", "reason"),
    [
        ("1 2 3", "got 3"),
        ("1 2 x 4", "could not convert"),
        ("1 2 0 4", "positive sides"),
        ("1 2 nan 4", "finite"),
    ],
)
def test_a_malformed_line_is_reported_and_skipped(tmp_path: Path, face: str, reason: str) -> None:
    root = retinaface_root(tmp_path, f"# a.png\n{face}\n5 6 7 8\n", ("a.png",))
    labels = read_labels(root)
    (problem,) = labels.problems
    assert (problem.file, problem.line) == (root / "label.txt", 2)
    assert reason in str(problem)
    np.testing.assert_array_equal(labels.annotations[0].boxes, [[5, 6, 12, 14]])


def test_a_missing_picture_is_reported_with_its_line(tmp_path: Path) -> None:
    root = retinaface_root(tmp_path, "# gone.png\n1 2 3 4\n# a.png\n5 6 7 8\n", ("a.png",))
    labels = read_labels(root)
    assert [a.image.name for a in labels.annotations] == ["a.png"]
    assert [(p.line, "gone.png" in p.reason) for p in labels.problems] == [(1, True)]


def test_a_folder_without_labels_or_pictures(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"label\.txt"):
        read_labels(tmp_path)
    (tmp_path / "label.txt").write_text("# gone.png\n1 2 3 4\n")
    with pytest.raises(DatasetError, match="found none"):
        read_labels(tmp_path)


def test_cache_decodes_once_and_reports_what_it_cannot_use(tmp_path: Path) -> None:
    root = retinaface_root(
        tmp_path / "root",
        "# a.png\n1 2 3 4\n100 2 5 5\n60 40 20 20\n# broken.png\n1 2 3 4\n# b.png\n5 6 7 8\n",
        ("a.png", "b.png"),
    )
    (root / "images/broken.png").write_bytes(b"no picture")
    annotations = read_labels(root).annotations
    decoded = []

    def watch(items):
        for item in items:
            decoded.append(item)
            yield item

    for _ in range(2):
        cache = build_cache(annotations, tmp_path / "cache", watch)
        assert [a.image.name for a in cache.annotations] == ["a.png", "b.png"]
        np.testing.assert_array_equal(cache.annotations[0].boxes, [[1, 2, 4, 6], [60, 40, 64, 48]])
        reasons = [str(problem) for problem in cache.problems]
        assert len(reasons) == 2
        assert "label.txt:3: box (100, 2, 105, 7) is outside" in reasons[0]
        assert "label.txt:6: cannot decode" in reasons[1]
        for index, annotation in enumerate(cache.annotations):
            np.testing.assert_array_equal(
                cache.picture(index), cv2.imread(str(annotation.image), cv2.IMREAD_COLOR)
            )
    assert len(decoded) == 3
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_an_unwritable_cache_is_a_typed_error(tmp_path: Path) -> None:
    root = retinaface_root(tmp_path / "root", "# a.png\n1 2 3 4\n", ("a.png",))
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="picture cache"):
        build_cache(read_labels(root).annotations, tmp_path / "file" / "cache")
