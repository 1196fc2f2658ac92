"""Blur that leaves nothing to recognise, and videos in which no face shows for a single frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces
from edgeface.errors import InvalidImageError, InvalidOptionError
from edgeface.privacy import KINDS, blur_video

Image = NDArray[np.uint8]
FPS = 25


def noise(height: int = 240, width: int = 320, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def changed(before: Image, after: Image) -> NDArray[np.bool_]:
    return (before != after).any(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_covers_the_box_and_its_margin_and_nothing_else(kind: str) -> None:
    image = noise()
    kept = image.copy()
    blurred = Faces([[100, 80, 150, 140]], [0.9]).blur(image, kind=kind, margin=0.2)
    inside = np.zeros(image.shape[:2], bool)
    inside[68:152, 90:160] = True
    assert not changed(image, blurred)[~inside].any()
    assert changed(image, blurred)[inside].mean() > 0.99
    assert np.array_equal(image, kept)
    assert blurred.dtype == np.uint8


@pytest.mark.parametrize("kind", ["gaussian", "pixelate"])
@pytest.mark.parametrize("side", [12, 40, 200, 1000])
def test_little_is_left_however_large_the_face(kind: str, side: int) -> None:
    """Two faces that agree in their coarse colours only look the same afterwards."""
    whole = Faces([[0, 0, side, side]], [0.9])
    pattern = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((side // 4, side // 4)))
    stripes = np.where(np.arange(side) // max(1, side // 24) % 2, 60, -60)
    base = np.repeat((100 + 40 * pattern)[..., None], 3, 2)
    one = (base + stripes[None, :, None]).astype(np.uint8)
    other = (base - stripes[None, :, None]).astype(np.uint8)
    first, second = (whole.blur(face, kind=kind).astype(int) for face in (one, other))
    assert np.abs(one.astype(int) - other).mean() == 120
    limit = 30 if side < 24 else 14
    assert np.abs(first - second).mean() < limit


@pytest.mark.parametrize("side", [30, 300])
def test_values_that_are_left(side: int) -> None:
    blurred = Faces([[0, 0, side, side]], [0.9]).blur(noise(side, side), kind="pixelate")
    assert 25 < len(np.unique(blurred.reshape(-1, 3), axis=0)) <= 36


def test_solid_leaves_nothing() -> None:
    whole = Faces([[0, 0, 320, 240]], [0.9])
    first, second = (whole.blur(noise(seed=seed), kind="solid") for seed in (1, 2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_no_detector_finds_the_face_again(kind: str, astronaut: Image) -> None:
    with Detector("onnxruntime") as detector:
        faces = detector(astronaut)
        assert len(faces) == 1
        assert len(detector(faces.blur(astronaut, kind=kind))) == 0


def test_faces_at_the_border_and_without_area() -> None:
    image = noise()
    boxes = [[-50, -50, 20, 20], [310, 230, 400, 400], [50, 50, 50, 90], [500, 500, 600, 600]]
    blurred = Faces(boxes, [0.9, 0.8, 0.7, 0.6]).blur(image, kind="solid", margin=0)
    assert not blurred[:20, :20].any()
    assert not blurred[230:, 310:].any()
    assert changed(image, blurred).sum() == 20 * 20 + 10 * 10
    for kind in KINDS:
        tiny = Faces([[5, 5, 6, 6], [9.5, 9.5, 9.6, 9.6]], [0.9, 0.8]).blur(image, kind=kind)
        assert tiny.shape == image.shape


def test_views_and_no_faces() -> None:
    wide = noise(240, 640)[:, ::2]
    blurred = Faces.empty().blur(wide)
    assert np.array_equal(blurred, wide)
    assert not np.shares_memory(blurred, wide)


def test_wrong_options() -> None:
    with pytest.raises(InvalidOptionError, match="'gaussian', 'pixelate', 'solid', got 'oil'"):
        Faces.empty().blur(noise(), kind="oil")
    for margin in (-0.1, float("nan"), float("inf"), "1"):
        with pytest.raises(InvalidOptionError, match="margin"):
            Faces.empty().blur(noise(), margin=margin)
    with pytest.raises(InvalidImageError):
        Faces.empty().blur(np.zeros((4, 4, 3)))
    for options in ({"fps": 0}, {"fps": 25, "hold": -1}, {"fps": 25, "kind": "oil"}):
        with pytest.raises(InvalidOptionError):
            list(blur_video([noise()], lambda _: Faces.empty(), **options))


def play(
    frames: int, place: Callable[[int], float], seen: Callable[[int], bool], **options: object
) -> list[float]:
    """Blur a white square of 20 pixels that moves over black; return how much of it shows.

    ``place`` gives its left edge, and ``seen`` whether the detector finds it, by frame.
    """
    images = []
    for frame in range(frames):
        image = np.zeros((100, 300, 3), np.uint8)
        x = round(place(frame))
        cv2.rectangle(image, (x, 40), (x + 19, 59), (255, 255, 255), -1)
        images.append(image)
    number = iter(range(frames))

    def detect(_: Image) -> Faces:
        frame = next(number)
        if not seen(frame):
            return Faces.empty()
        return Faces([[place(frame), 40, place(frame) + 20, 60]], [0.35])

    blurred = list(blur_video(images, detect, fps=FPS, kind="solid", **options))
    assert len(blurred) == frames
    return [float((image == 255).all(-1).sum()) / 400 for image in blurred]


def test_a_missed_frame_shows_nothing() -> None:
    assert max(play(40, lambda frame: 20 + 2.0 * frame, lambda frame: frame % 7 != 5)) == 0


def test_a_second_of_misses_shows_nothing() -> None:
    shown = play(80, lambda _: 100.0, lambda frame: not 20 <= frame < 44)
    assert max(shown) == 0


def test_a_face_that_slows_down_while_it_is_lost_stays_covered() -> None:
    shown = play(60, lambda frame: 20 + 3.0 * min(frame, 25), lambda frame: frame <= 22)
    assert max(shown[:47]) == 0


def test_a_face_that_appears_is_covered_before_it_is_found() -> None:
    shown = play(30, lambda frame: 100 + 2.0 * frame, lambda frame: frame >= 10)
    assert shown[:5] == [1.0] * 5
    assert max(shown[5:]) == 0


def test_lookahead_and_hold_are_what_covers_it() -> None:
    def seen(frame: int) -> bool:
        return 10 <= frame < 20

    shown = play(60, lambda _: 100.0, seen, lookahead=3, hold=0.4)
    assert [frame for frame, part in enumerate(shown) if part == 0] == list(range(7, 30))


def test_frames_are_not_hoarded() -> None:
    given = 0

    def frames() -> Iterator[Image]:
        nonlocal given
        while True:
            given += 1
            yield np.zeros((8, 8, 3), np.uint8)

    blurred = blur_video(frames(), lambda _: Faces.empty(), fps=FPS)
    for wanted in range(1, 200):
        next(blurred)
        assert given <= wanted + 6


def test_frames_that_change_their_size() -> None:
    images = [noise(100, 100), noise(50, 200), noise(200, 50)]
    blurred = list(blur_video(images, lambda _: Faces([[10, 10, 40, 40]], [0.9]), fps=FPS))
    assert [image.shape for image in blurred] == [image.shape for image in images]
