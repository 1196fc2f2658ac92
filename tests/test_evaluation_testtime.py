"""Test-time options of the papers: several sizes, the mirror image, box voting."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.cli.main import main
from edgeface.errors import InvalidOptionError
from edgeface.evaluation.protocols import PROTOCOLS, Protocol, find_protocol
from edgeface.evaluation.testtime import ManyViews, mirrored, vote
from edgeface.faces import Faces

FACE = np.array([[30, 40], [60, 41], [46, 55], [33, 70], [58, 71]], np.float32)


def faces(*rows: tuple[float, ...]) -> Faces:
    """Rows of x1, y1, x2, y2, score; landmarks all in the box's corner."""
    boxes = np.array([row[:4] for row in rows], np.float32)
    landmarks = np.repeat(boxes[:, None, :2], 5, 1)
    return Faces(boxes, np.array([row[4] for row in rows], np.float32), landmarks)


def test_box_voting_by_hand() -> None:
    """Two boxes overlap by 80 / 120; the mean leans to the better one by 3 to 1."""
    voted = vote(
        faces((0, 0, 10, 10, 0.9), (2, 0, 12, 10, 0.3), (40, 0, 50, 10, 0.2), (90, 0, 99, 9, 0.1)),
        0.4,
    )
    np.testing.assert_allclose(
        voted.boxes, [[0.5, 0, 10.5, 10], [40, 0, 50, 10], [90, 0, 99, 9]], atol=1e-5
    )
    np.testing.assert_allclose(voted.scores, [0.9, 0.2, 0.1], atol=1e-6)
    assert voted.landmarks is not None
    np.testing.assert_allclose(voted.landmarks[0], [[0.5, 0]] * 5, atol=1e-5)


def test_a_vote_goes_to_the_best_box_alone_and_only_from_the_threshold_on() -> None:
    """IoU 0.43 with the best votes at 0.4, not at 0.5; what one took is gone for the next."""
    chain = faces((0, 0, 10, 10, 0.9), (4, 0, 14, 10, 0.6), (8, 0, 18, 10, 0.5))
    assert len(vote(chain, 0.4)) == 2
    np.testing.assert_allclose(vote(chain, 0.4).boxes[1], [8, 0, 18, 10])
    assert len(vote(chain, 0.5)) == 3
    assert len(vote(Faces.empty(), 0.4)) == 0


def test_mirroring_swaps_left_and_right_landmarks() -> None:
    found = Faces(np.array([[20, 30, 70, 80]], np.float32), np.ones(1, np.float32), FACE[None])
    back = mirrored(found, 100)
    np.testing.assert_array_equal(back.boxes, [[30, 30, 80, 80]])
    assert back.landmarks is not None
    np.testing.assert_array_equal(back.landmarks[0][:, 0], [40, 70, 54, 42, 67])
    np.testing.assert_array_equal(back.landmarks[0][:, 1], [41, 40, 55, 71, 70])
    again = mirrored(back, 100)
    np.testing.assert_array_equal(again.landmarks, found.landmarks)


def bright(image: NDArray[np.uint8]) -> Faces:
    """A 'detector' of the one bright patch; its left eye lies a quarter into it."""
    rows, columns = np.nonzero(image[..., 0] > 128)
    x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    points = np.array([[x1 + (x2 - x1) * f, y1] for f in (0.25, 0.75, 0.5, 0.3, 0.7)], np.float32)
    box = np.array([[x1, y1, x2, y2]], np.float32)
    return Faces(box, np.array([0.5], np.float32), points[None])


def test_every_view_is_looked_at_and_comes_back_in_the_pictures_pixels() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:60, 30:90] = 255
    seen: list[tuple[int, ...]] = []

    def predict(view: NDArray[np.uint8]) -> Faces:
        assert view.flags.c_contiguous
        seen.append(view.shape[:2])
        return bright(view)

    several = ManyViews(predict, Protocol((50, 100, 300), flip=True, box_voting=0.4))(image)
    assert seen == [(50, 100)] * 2 + [(100, 200)] * 2 + [(300, 600)] * 2
    assert len(several) == 1
    np.testing.assert_allclose(several.boxes, [[30, 20, 90, 60]], atol=1)
    assert several.landmarks is not None
    np.testing.assert_allclose(several.landmarks[0][:, 0], [45, 75, 60, 48, 72], atol=1)

    plain = ManyViews(predict, Protocol(flip=True))(image)
    np.testing.assert_array_equal(plain.boxes, [[30, 20, 90, 60]])


def test_top_k_counts_over_all_views_and_nms_keeps_the_best() -> None:
    rows = [(20.0 * i, 0, 20.0 * i + 10, 10, 0.9 - 0.1 * i) for i in range(5)]
    image = np.zeros((50, 100, 3), np.uint8)

    def found(protocol: Protocol) -> Faces:
        return ManyViews(lambda _: faces(*rows), protocol)(image)

    assert len(found(Protocol())) == 5
    assert len(found(Protocol(top_k=2))) == 2
    assert len(found(Protocol(max_faces=3))) == 3
    twice = ManyViews(lambda _: faces(*rows, (1, 0, 11, 10, 0.3)), Protocol())(image)
    np.testing.assert_array_equal(twice.boxes[0], rows[0][:4])
    assert len(twice) == 5


def test_protocols_are_the_papers() -> None:
    assert PROTOCOLS["retinaface"].short_edges == (500, 800, 1100, 1400, 1700)
    assert (PROTOCOLS["retinaface"].flip, PROTOCOLS["retinaface"].box_voting) == (True, 0.4)
    assert (PROTOCOLS["refineface"].score_threshold, PROTOCOLS["refineface"].top_k) == (0.05, 5000)
    assert PROTOCOLS["isrn"].top_k == 2000
    assert PROTOCOLS["df2s2"].short_edges == (600, 800, 1000, 1200, 1400)
    assert {p.max_faces for p in PROTOCOLS.values()} == {750}
    with pytest.raises(InvalidOptionError, match="expected a protocol of retinaface"):
        find_protocol("ssd")
    for wrong in (Protocol((0,)), Protocol(box_voting=0.0), Protocol(box_voting=1.5)):
        with pytest.raises(InvalidOptionError):
            wrong.check()


def test_it_loads_no_torch() -> None:
    code = "import edgeface.evaluation.testtime, sys; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert done.stdout.strip() == "False"


def test_eval_with_a_protocol(
    make_wider: Callable[..., Path], astronaut: NDArray[np.uint8], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    portrait = make_wider(
        picture=cv2.resize(astronaut, (320, 320)),
        faces={("0--A", "astronaut"): [(111, 34, 58, 78, 1, 1, 1)]},
    )
    views = ["--protocol", "retinaface", "--scales", "256,320", "--json", str(tmp_path / "a.json")]
    assert main(["eval", "--data", str(portrait), *views]) == 0
    out = capsys.readouterr().out
    assert "short edges 256, 320, flip, box voting 0.4, score > 0.02, top 5000, keep 750" in out
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["easy"] == 1.0
    assert content["protocol"]["short_edges"] == [256, 320]
    assert content["protocol"]["flip"] is True

    for options, expected in (
        (["--protocol", "ssd"], "expected a protocol of"),
        (["--box-voting", "2"], "box voting at an IoU in 0..1"),
        (["--flip", "--predictions", str(tmp_path)], "expected --predictions as they are"),
    ):
        assert main(["eval", "--data", str(portrait), *options]) == 1
        assert expected in capsys.readouterr().err
