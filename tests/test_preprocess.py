from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.errors import InvalidOptionError
from edgeface.preprocess import check_input_size, letterbox, network_size

PAD = (104, 117, 123)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "input_size", "expected"),
    [
        ((1000, 750), None, (1024, 768)),
        ((1000, 750), 640, (640, 480)),
        ((750, 1000), 640, (480, 640)),
        ((1000, 750), 600, (608, 480)),
        ((320, 240), 640, (320, 256)),
        ((1, 1), 640, (32, 32)),
        ((5000, 1), 640, (640, 32)),
        ((1000, 750), (640, 640), (640, 640)),
        ((1000, 750), (np.int64(320), 256), (320, 256)),
    ],
)
def test_network_size(size: tuple[int, int], input_size: object, expected: tuple[int, int]) -> None:
    assert network_size(*size, input_size, 32) == expected


@pytest.mark.parametrize(
    ("size", "input_size", "expected"),
    [
        ((640, 480), 640, (640, 480)),
        ((480, 640), 640, (640, 640)),
        ((1000, 500), 640, (640, 480)),
        ((300, 200), 640, (320, 320)),
        ((300, 200), None, (320, 320)),
        ((2000, 1000), None, (640, 480)),
        ((1000, 2000), None, (640, 640)),
        ((640, 480), (320, 320), (320, 320)),
    ],
)
def test_network_size_of_a_static_model(
    size: tuple[int, int], input_size: object, expected: tuple[int, int]
) -> None:
    allowed = ((640, 640), (320, 320), (640, 480))
    assert network_size(*size, input_size, 32, allowed) == expected


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "640", (640,), (640, 0), (1, 2, 3), (True, 1)])
def test_wrong_input_size(wrong: object) -> None:
    with pytest.raises(InvalidOptionError, match="expected input_size"):
        check_input_size(wrong, 32)


def test_pairs_must_fit_the_model() -> None:
    with pytest.raises(InvalidOptionError, match=r"stride 32.*\(640, 512\)"):
        check_input_size((640, 490), 32)
    with pytest.raises(InvalidOptionError, match=r"320x320.*got 640x640"):
        check_input_size((640, 640), 32, [(320, 320)])


def test_no_copy_of_a_frame_that_fits() -> None:
    image = picture(64, 96)
    frame, placed = letterbox(image, 640, stride=32, pad_value=PAD)
    assert np.shares_memory(frame, image)
    assert frame.shape == (1, 64, 96, 3)
    assert (placed.scale_x, placed.scale_y, placed.width, placed.height) == (1, 1, 96, 64)


def test_a_view_that_fits_is_made_contiguous() -> None:
    image = picture(64, 96)[:, ::-1]
    frame, _ = letterbox(image, 640, stride=32, pad_value=PAD)
    assert frame.flags.c_contiguous
    assert np.array_equal(frame[0], image)


def test_pads_right_and_bottom() -> None:
    image = picture(50, 70)
    frame, placed = letterbox(image, None, stride=32, pad_value=PAD)
    assert frame.shape == (1, 64, 96, 3)
    assert np.array_equal(frame[0, :50, :70], image)
    assert (frame[0, 50:] == PAD).all()
    assert (frame[0, :, 70:] == PAD).all()
    assert (placed.network_width, placed.network_height) == (96, 64)


def test_shrinks_as_opencv_does() -> None:
    image = picture(333, 1000)
    frame, placed = letterbox(image, 600, stride=32, pad_value=PAD)
    assert frame.shape == (1, 224, 608, 3)
    assert np.array_equal(frame[0, :200, :600], cv2.resize(image, (600, 200)))
    assert placed.scale_x == pytest.approx(0.6)
    assert placed.scale_y == pytest.approx(200 / 333)
    assert (frame[0, 200:] == PAD).all()
    assert (frame[0, :, 600:] == PAD).all()


def test_a_pair_shrinks_but_never_enlarges() -> None:
    frame, placed = letterbox(picture(100, 400), (320, 320), stride=32, pad_value=PAD)
    assert frame.shape == (1, 320, 320, 3)
    assert (placed.scale_x, placed.scale_y) == (0.8, 0.8)
    assert (frame[0, 80:] == PAD).all()
    _, placed = letterbox(picture(40, 50), (320, 320), stride=32, pad_value=PAD)
    assert (placed.scale_x, placed.scale_y) == (1, 1)


def test_a_static_model_keeps_the_long_side_asked_for() -> None:
    frame, placed = letterbox(
        picture(480, 640), 320, stride=32, pad_value=PAD, allowed=((640, 640),)
    )
    assert frame.shape == (1, 640, 640, 3)
    assert placed.scale_x == 0.5


def test_reuses_the_buffer_and_clears_its_padding() -> None:
    first, _ = letterbox(picture(64, 64), (64, 96), stride=32, pad_value=PAD)
    expected, _ = letterbox(picture(30, 20), (64, 96), stride=32, pad_value=PAD)
    again, _ = letterbox(picture(30, 20), (64, 96), stride=32, pad_value=PAD, out=first)
    assert again is first
    assert np.array_equal(again, expected)
    other, _ = letterbox(picture(30, 20), (32, 32), stride=32, pad_value=PAD, out=first)
    assert not np.shares_memory(other, first)


@pytest.mark.parametrize(
    "image",
    [picture(480, 640), picture(360, 640), picture(720, 1280), picture(480, 1280)[:, ::2]],
    ids=["fits", "padded", "shrunk", "a view that fits"],
)
def test_a_frame_with_a_buffer_takes_no_memory(image: NDArray[np.uint8]) -> None:
    buffer, _ = letterbox(image, 640, stride=32, pad_value=PAD)
    tracemalloc.start()
    try:
        letterbox(image, 640, stride=32, pad_value=PAD, out=buffer)
        assert tracemalloc.get_traced_memory()[1] < 10_000 < buffer.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "image",
    [
        picture(90, 120)[::2, ::3],
        picture(90, 120)[::-1, :, ::-1],
        picture(70, 50).transpose(1, 0, 2),
    ],
    ids=["steps", "flips", "transposed"],
)
@pytest.mark.parametrize("input_size", [None, 32, (96, 96)])
def test_views(image: NDArray[np.uint8], input_size: object) -> None:
    frame, _ = letterbox(image, input_size, stride=32, pad_value=PAD)
    plain, _ = letterbox(image.copy(), input_size, stride=32, pad_value=PAD)
    assert np.array_equal(frame, plain)


def test_leaves_the_picture_alone() -> None:
    image = picture(90, 120)
    image.setflags(write=False)
    before = image.copy()
    for input_size in (None, 64, (96, 96)):
        letterbox(image, input_size, stride=32, pad_value=PAD)
    assert np.array_equal(image, before)


def test_one_pixel() -> None:
    frame, placed = letterbox(picture(1, 1), 640, stride=32, pad_value=PAD)
    assert frame.shape == (1, 32, 32, 3)
    assert (placed.width, placed.height) == (1, 1)
