"""Quality of faces whose pose, size and sharpness are known, and the best shot of a track."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import BestShots, Detector, Faces
from edgeface.align import TEMPLATE
from edgeface.errors import InvalidImageError, InvalidOptionError
from edgeface.quality import HEAD, measure, pose

Image = NDArray[np.uint8]


def turned(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Five points of the average head, turned and seen from afar, by rotation matrices.

    Right, down and ahead are the axes; a positive turn about down brings the face, which looks
    towards us, to the left, so that yaw enters with the other sign; so does pitch.
    """
    y, p, r = np.radians([-yaw, -pitch, roll])
    about_down = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_right = [[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]]
    about_ahead = [[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]]
    rotation = np.array(about_down) @ np.array(about_right) @ np.array(about_ahead)
    return 3.7 * (HEAD @ rotation.T)[:, :2] + (200, 150)


@pytest.mark.parametrize("yaw", [-60, 0, 35])
@pytest.mark.parametrize("pitch", [-30, 0, 20])
@pytest.mark.parametrize("roll", [-120, 0, 45])
def test_pose_is_recovered(yaw: float, pitch: float, roll: float) -> None:
    angles = pose(turned(yaw, pitch, roll)[None])
    assert angles == pytest.approx(np.array([[yaw], [pitch], [roll]]), abs=1e-6)


def test_signs_of_the_pose() -> None:
    """The nose tells where a face looks; eyes, how it leans."""
    front = HEAD[:, :2] * 3 + 200
    right, up = front.copy(), front.copy()
    right[2, 0] += 20
    up[2, 1] -= 20
    clockwise = front.copy()
    clockwise[[1, 4], 1] += 20
    yaw, pitch, roll = pose(np.stack([front, right, up, clockwise]))
    assert np.abs([yaw[0], pitch[0], roll[0]]).max() < 0.1
    assert yaw[1] > 10
    assert pitch[2] > 10
    assert roll[3] > 5


def test_pose_of_the_mirror_image() -> None:
    points = turned(25, 10, 15)
    mirrored = (points * (-1, 1) + (400, 0))[[1, 0, 2, 4, 3]]
    yaw, pitch, roll = pose(mirrored[None])[:, 0]
    assert (yaw, pitch, roll) == pytest.approx((-25, 10, -15), abs=1e-6)


def test_pose_of_people(data: object) -> None:
    """The 1,463 labelled portraits look into the camera, more or less, half to each side."""
    rows = [
        line.split()
        for line in (data / "landmarks" / "label.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    points = np.array(rows, float)[:, 4:19].reshape(-1, 5, 3)[..., :2]
    angles = pose(points)
    assert np.abs(np.median(angles, 1)).max() < 3
    eyes = points[:, 1] - points[:, 0]
    slope = np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))
    level = np.abs(angles[0]) < 20
    assert np.abs(angles[2] - slope)[level].mean() < 4


@pytest.fixture(scope="module")
def portrait(astronaut: Image) -> tuple[Image, Faces]:
    with Detector("onnxruntime") as detector:
        return astronaut, detector(astronaut)


def test_columns(portrait: tuple[Image, Faces]) -> None:
    image, faces = portrait
    quality = faces.quality(image)
    (box,) = faces.boxes
    assert quality.size == pytest.approx([np.sqrt((box[2] - box[0]) * (box[3] - box[1]))])
    for column in (quality.sharpness, quality.yaw, quality.pitch, quality.roll, quality.overall):
        assert column.shape == (1,)
    assert 0.5 < quality.overall[0] <= 1
    assert np.abs(quality.roll[0]) < 15


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    """Aligned to itself a crop keeps its pixels: a checkerboard's Laplacian is known."""
    board = (np.indices((112, 112)).sum(0) % 2 * 200).astype(np.uint8)
    image = np.repeat(board[..., None], 3, 2)
    face = Faces([[20, 20, 90, 110]], [1.0], TEMPLATE[None])
    inner = cv2.Laplacian(board, cv2.CV_64F)
    assert measure(image, face).sharpness == pytest.approx([inner.var()], rel=0.01)
    assert inner[5, 5] == pytest.approx(800 if board[5, 5] == 0 else -800)


def test_each_fault_costs_quality(portrait: tuple[Image, Faces]) -> None:
    image, faces = portrait
    good = faces.quality(image)

    soft = faces.quality(cv2.GaussianBlur(image, (0, 0), 3))
    assert soft.sharpness[0] < 0.3 * good.sharpness[0]
    assert soft.overall[0] < good.overall[0]

    small = Faces(faces.boxes / 4, faces.scores, faces.landmarks / 4)
    shrunk = small.quality(cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA))
    assert shrunk.size == pytest.approx(good.size / 4)
    assert shrunk.overall[0] < good.overall[0]

    away = Faces(faces.boxes, faces.scores, turned(70, 0, 0)[None] / 3 + (150, 50))
    assert away.quality(image).overall[0] < good.overall[0]

    unsure = Faces(faces.boxes, faces.scores / 2, faces.landmarks)
    assert unsure.quality(image).overall[0] == pytest.approx(good.overall[0] * 0.5**0.25)


def test_no_face_and_no_landmarks() -> None:
    image = np.zeros((90, 120, 3), np.uint8)
    quality = Faces.empty().quality(image)
    assert quality.overall.shape == quality.yaw.shape == quality.sharpness.shape == (0,)
    with pytest.raises(InvalidOptionError, match="landmarks"):
        Faces([[0, 0, 9, 9]], [0.9]).quality(image)
    with pytest.raises(InvalidImageError):
        Faces.empty().quality(image.astype(float))


def tracked(faces: Faces, number: int) -> Faces:
    return Faces(faces.boxes, faces.scores, faces.landmarks, np.full(len(faces), number))


def test_the_best_shot_is_kept(portrait: tuple[Image, Faces]) -> None:
    image, faces = portrait
    shots = BestShots()
    for seconds, sigma in enumerate((4, 2, 0.5, 1, 3)):
        frame = cv2.GaussianBlur(image, (0, 0), sigma)
        shots.update(frame, tracked(faces, 7), float(seconds))
        frame[:] = 0
    assert list(shots) == [7]
    best = shots[7]
    assert best.timestamp == 2
    sharpest = cv2.GaussianBlur(image, (0, 0), 0.5)
    assert best.quality == pytest.approx(faces.quality(sharpest).overall[0])
    assert np.array_equal(best.aligned, faces.crop_aligned(sharpest)[0])
    assert best.face.track_id == 7
    x1, y1, x2, y2 = faces.boxes[0]
    assert best.crop.shape[0] == pytest.approx(min(1.6 * (y2 - y1), 0.3 * (y2 - y1) + y2), abs=3)
    assert best.crop.shape[1] == pytest.approx(1.6 * (x2 - x1), abs=3)
    assert best.crop.any()


def test_old_tracks_make_room(portrait: tuple[Image, Faces]) -> None:
    image, faces = portrait
    shots = BestShots(max_tracks=2)
    for number in (1, 2, 1, 3):
        shots.update(image, tracked(faces, number), 0.0)
    assert set(shots) == {1, 3}
    assert shots.pop(1).face.track_id == 1
    assert len(shots) == 1
    with pytest.raises(KeyError):
        shots.pop(1)


def test_shots_of_faces_at_the_border(astronaut: Image) -> None:
    landmarks = np.array([[[500, 500], [520, 500], [510, 510], [502, 520], [518, 520]]])
    faces = Faces([[511.5, 511.5, 512, 512]], [0.9], landmarks, [1])
    shots = BestShots()
    shots.update(astronaut, faces, 0.0)
    assert shots[1].crop.size > 0


def test_wrong_use_of_shots(portrait: tuple[Image, Faces]) -> None:
    with pytest.raises(InvalidOptionError, match="Tracker"):
        BestShots().update(*portrait, 0.0)
    for max_tracks in (0, 1.5, True):
        with pytest.raises(InvalidOptionError, match="max_tracks"):
            BestShots(max_tracks)
