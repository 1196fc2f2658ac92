from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.draw import BOX_COLOR
from edgeface.errors import InvalidImageError
from edgeface.faces import Faces

LANDMARKS = np.array([[[120, 120], [180, 120], [150, 150], [125, 180], [175, 180]]])
FACES = Faces([[100, 90, 200, 210]], [0.987], LANDMARKS)


def canvas(height: int = 480, width: int = 640) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 128, np.uint8)


def changed(drawn: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (drawn != 128).any(-1)


def test_draws_box_landmarks_and_label() -> None:
    image = canvas()
    drawn = FACES.draw(image)
    assert (image == 128).all()
    assert drawn.shape == image.shape
    for x, y in ((100, 150), (200, 150), (150, 90), (150, 210)):
        assert drawn[y, x].tolist() == list(BOX_COLOR)
    mask = changed(drawn)
    assert all(mask[y, x] for x, y in LANDMARKS[0])
    assert mask[70:89, 100:130].any()
    assert not mask[250:].any()
    assert not mask[:, 300:].any()


def test_scores_can_be_left_out() -> None:
    assert not changed(FACES.draw(canvas(), scores=False))[:88].any()


def test_label_stays_in_the_picture() -> None:
    drawn = changed(Faces([[0, 0, 200, 300]], [0.9]).draw(canvas()))
    assert drawn[4:12, 4:40].any()


def test_tracks_are_named() -> None:
    plain = Faces([[100, 90, 200, 210]], [0.9]).draw(canvas())
    tracked = Faces([[100, 90, 200, 210]], [0.9], None, [7]).draw(canvas())
    assert (plain != tracked).any()


def test_lines_scale_with_the_picture() -> None:
    def line_width(scale: int) -> int:
        faces = Faces(FACES.boxes * scale, FACES.scores)
        drawn = changed(faces.draw(canvas(480 * scale, 640 * scale), scores=False))
        return int(drawn[150 * scale, : 150 * scale].sum())

    assert line_width(4) > 2 * line_width(1)


def test_far_away_points_and_tiny_faces() -> None:
    faces = Faces([[0, 0, 1e9, 1e9], [5, 5, 5, 5]], [0.9, 0.8], np.full((2, 5, 2), -1e9))
    assert faces.draw(canvas()).shape == (480, 640, 3)


def test_views_and_grey_pictures() -> None:
    wide = canvas(480, 1280)[:, ::2]
    assert np.array_equal(FACES.draw(wide), FACES.draw(canvas()))
    assert np.array_equal(FACES.draw(canvas()[..., 0]), FACES.draw(canvas()))
    assert (wide == 128).all()


def test_no_faces_gives_a_copy() -> None:
    image = canvas()
    drawn = Faces.empty().draw(image)
    assert np.array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_wrong_pictures() -> None:
    with pytest.raises(InvalidImageError):
        FACES.draw(np.zeros((4, 4, 3)))
