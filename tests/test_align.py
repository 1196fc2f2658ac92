from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.align import TEMPLATE, align_faces, similarity
from edgeface.errors import InvalidOptionError
from edgeface.faces import Faces

# From scikit-image: SimilarityTransform.estimate and warp of the astronaut, (row, column): BGR.
GOLDEN_MATRIX = [[0.870167, 0.020008, -141.870406], [-0.020008, 0.870167, -30.461899]]
GOLDEN_PIXELS = {
    (52, 38): [8, 27, 47],
    (52, 74): [12, 33, 58],
    (72, 56): [153, 179, 224],
    (92, 42): [133, 151, 202],
    (20, 56): [106, 143, 166],
    (100, 100): [206, 207, 215],
}


def turned(points: NDArray[np.float64], degrees: float, scale: float) -> NDArray[np.float64]:
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ rotation.T + [37.0, -12.0]


@pytest.mark.parametrize("degrees", [0, 30, -90, 179])
@pytest.mark.parametrize("scale", [0.2, 1, 7])
def test_recovers_an_exact_transform(degrees: float, scale: float) -> None:
    source = turned(TEMPLATE, degrees, scale)
    matrix = similarity(source, TEMPLATE)
    assert source @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(TEMPLATE, abs=1e-9)


def test_is_the_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 5, 2)) * 40
    rows = []
    for x, y in source:
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), target.reshape(-1), rcond=None)[0]
    assert similarity(source, target) == pytest.approx(np.array([[a, -b, tx], [b, a, ty]]))


def test_does_not_reflect() -> None:
    matrix = similarity(TEMPLATE * [-1, 1], TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_crops_bring_each_landmark_to_its_place() -> None:
    landmarks = turned(TEMPLATE, 25, 2.5)
    landmarks += 60 - landmarks.min(0)
    image = np.zeros((400, 400, 3), np.uint8)
    yy, xx = np.mgrid[:400, :400]
    for index, (x, y) in enumerate(landmarks):
        near = (xx - x) ** 2 + (yy - y) ** 2 < 100
        image[near] = 50 * (index + 1)
    crops = align_faces(image, landmarks[None], 224)
    assert crops.shape == (1, 224, 224, 3)
    for index, (x, y) in enumerate(TEMPLATE * 2):
        assert crops[0, round(y), round(x)].tolist() == [50 * (index + 1)] * 3


def test_from_faces(astronaut: NDArray[np.uint8]) -> None:
    landmarks = np.array([[[202, 102], [248, 104], [224, 129], [202, 140], [244, 142]]])
    faces = Faces([[178, 54, 271, 179]], [1], landmarks)
    crops = faces.crop_aligned(astronaut)
    assert crops.shape == (1, 112, 112, 3)
    assert crops.dtype == np.uint8
    assert crops[0, 30:100, 30:80].mean() > 80
    assert Faces.empty().crop_aligned(astronaut, 64).shape == (0, 64, 64, 3)


def test_template_is_the_one_that_recognisers_are_trained_on() -> None:
    """ArcFace's five points in a crop of 112 x 112; a pixel off costs a recogniser accuracy."""
    assert TEMPLATE.tolist() == [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]


def test_golden_crop(astronaut: NDArray[np.uint8]) -> None:
    """Eyes at the template's eyes: matrix and colours are another library's."""
    landmarks = np.array([[202.0, 101], [248, 102], [224, 128], [205, 141], [244, 142]])
    matrix = similarity(landmarks, TEMPLATE)
    assert matrix == pytest.approx(np.array(GOLDEN_MATRIX), abs=5e-4)
    (crop,) = align_faces(astronaut, landmarks[None])
    assert [crop[y, x].tolist() for y, x in GOLDEN_PIXELS] == pytest.approx(
        np.array(list(GOLDEN_PIXELS.values())), abs=2
    )


def test_points_that_coincide() -> None:
    with pytest.raises(InvalidOptionError, match="differ"):
        align_faces(np.zeros((9, 9, 3), np.uint8), np.full((1, 5, 2), 4.0))


@pytest.mark.parametrize("size", [0, -1, 1.5, "112"])
def test_wrong_size(size: object) -> None:
    with pytest.raises(InvalidOptionError, match="positive integer"):
        align_faces(np.zeros((9, 9, 3), np.uint8), TEMPLATE[None], size)
