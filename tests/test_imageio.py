from __future__ import annotations

import io
import itertools
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.errors import InvalidImageError, InvalidOptionError
from edgeface.imageheader import declared_size, is_cut
from edgeface.imageio import MAX_PIXELS, read_image

FORMATS = [".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm"]


@pytest.fixture
def image() -> NDArray[np.uint8]:
    """A smooth picture that is nowhere symmetric: blue grows to the right, green downwards."""
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 250, 80)
    picture[..., 1] = np.linspace(0, 250, 48)[:, None]
    picture[..., 2] = 30
    return picture


def encode(suffix: str, image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def close(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    return a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 12


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_and_bytes(suffix: str, image: NDArray[np.uint8], tmp_path: Path) -> None:
    data = encode(suffix, image)
    path = tmp_path / f"ä picture{suffix}"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data)):
        assert close(read_image(source), image)


def test_color_is_about_arrays_only(image: NDArray[np.uint8]) -> None:
    assert close(read_image(encode(".png", image), "rgb"), image)
    assert np.array_equal(read_image(image[..., ::-1], "rgb"), image)
    with pytest.raises(InvalidOptionError, match="'bgr' or 'rgb', got 'hsv'"):
        read_image(image, "hsv")


def test_arrays_are_not_copied_or_changed(image: NDArray[np.uint8]) -> None:
    image.setflags(write=False)
    assert read_image(image) is image


def test_array_layouts(image: NDArray[np.uint8]) -> None:
    grey = image[..., 0]
    expected = np.repeat(grey[..., None], 3, 2)
    assert np.array_equal(read_image(grey), expected)
    assert np.array_equal(read_image(grey[..., None]), expected)
    assert np.array_equal(read_image(grey[:, ::-2]), expected[:, ::-2])
    alpha = np.dstack([image, np.full(image.shape[:2], 9, np.uint8)])
    assert np.array_equal(read_image(alpha), image)
    assert np.array_equal(read_image(alpha[::-1]), image[::-1])
    assert np.array_equal(read_image(alpha, "rgb"), image[..., ::-1])
    assert read_image(np.zeros((1, 1, 3), np.uint8)).shape == (1, 1, 3)


def test_grey_and_transparent_files(image: NDArray[np.uint8]) -> None:
    assert np.array_equal(read_image(encode(".png", image[..., 1]))[..., 2], image[..., 1])
    clear = np.dstack([image, np.zeros(image.shape[:2], np.uint8)])
    assert np.array_equal(read_image(encode(".png", clear)), image)
    deep = image.astype(np.uint16) * 257
    assert np.array_equal(read_image(encode(".png", deep)), image)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (3, lambda upright: upright[::-1, ::-1]),
        (6, lambda upright: np.rot90(upright, 1)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_exif_orientation(orientation: int, stored: object, image: NDArray[np.uint8]) -> None:
    data = with_orientation(encode(".jpg", stored(image)), orientation)
    assert close(read_image(data), image)


def test_pil(image: NDArray[np.uint8]) -> None:
    pil = pytest.importorskip("PIL.Image")
    picture = pil.fromarray(image[..., ::-1].copy())
    assert np.array_equal(read_image(picture), image)
    assert np.array_equal(read_image(picture.convert("RGBA"), "bgr"), image)
    assert read_image(picture.convert("L")).shape == image.shape
    assert read_image(picture.convert("P")).shape == image.shape
    deep = pil.fromarray(image[..., 0].astype(np.uint16) * 257)
    with pytest.raises(InvalidImageError, match=r"8 bits a channel, got mode 'I;16'"):
        read_image(deep)
    cut = pil.open(io.BytesIO(encode(".png", image)[:-30]))
    with pytest.raises(InvalidImageError, match="cannot be decoded"):
        read_image(cut)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3)), r"got float64; convert it with \(image \* 255\)"),
        (np.zeros((4, 4, 3), np.float16), "got float16"),
        (np.zeros((4, 4), np.uint16), r"got uint16; .*257"),
        (np.zeros((4, 4), bool), r"got bool; .*255"),
        (np.zeros((4, 4, 3), np.int64), r"got int64; .*astype\('uint8'\)"),
        (np.array([[None]]), "got object"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        (np.zeros((4, 0), np.uint8), "at least one pixel"),
        (np.zeros(4, np.uint8), r"got \(4,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((3, 40, 40), np.uint8), "channels last"),
        (np.zeros((2, 4, 4, 3), np.uint8), "a list of pictures"),
    ],
)
def test_wrong_arrays(array: NDArray[np.generic], message: str) -> None:
    with pytest.raises(InvalidImageError, match=message):
        read_image(array)


@pytest.mark.parametrize("source", [None, 7, [1, 2], {"a": 1}, object()])
def test_other_types(source: object) -> None:
    with pytest.raises(InvalidImageError, match=f"got {type(source).__name__}"):
        read_image(source)


@pytest.mark.parametrize(
    ("suffix", "kept"),
    [
        *itertools.product([".jpg", ".png", ".webp", ".bmp", ".tiff"], [0.1, 0.5, 0.9]),
        *itertools.product([".jpg", ".png", ".webp", ".bmp"], [-2, -1]),
    ],
)
def test_truncated_files(
    suffix: str, kept: float, image: NDArray[np.uint8], tmp_path: Path
) -> None:
    large = cv2.resize(image, (640, 480))
    large += np.random.default_rng(0).integers(0, 6, large.shape, np.uint8)
    data = encode(suffix, large)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * kept) if kept > 0 else int(kept)])
    with pytest.raises(InvalidImageError, match=f"whole picture.*{path.name}"):
        read_image(path)


def test_a_jpeg_that_some_decoders_would_fill_with_grey(image: NDArray[np.uint8]) -> None:
    data = encode(".jpg", image)
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    with_thumbnail = data[:2] + thumbnail + data[2:]
    assert not is_cut(data)
    assert not is_cut(with_thumbnail)
    assert not is_cut(data + b"trailer of a phone")
    assert is_cut(data[:-2])
    assert is_cut(with_thumbnail[:-2])


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"hello", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBP", b"BM", b"GIF89a"],
)
def test_bytes_that_are_no_picture(data: bytes) -> None:
    with pytest.raises(InvalidImageError, match=f"whole picture.*{len(data)} bytes"):
        read_image(data)


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match=r"missing\.png does not exist"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(InvalidImageError, match="got the folder"):
        read_image(tmp_path)
    with pytest.raises(InvalidImageError, match=r"cannot be read.*too long"):
        read_image("a" * 5000)
    with pytest.raises(InvalidImageError, match="cannot be read"):
        read_image("nul\0byte.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidImageError, match="device or pipe"):
        read_image(tmp_path / "pipe.png")
    text = tmp_path / "notes.jpg"
    text.write_text("no picture at all")
    with pytest.raises(InvalidImageError, match=r"no known picture format.*notes\.jpg"):
        read_image(text)


def png_bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_decompression_bombs_are_refused_before_decoding(
    image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InvalidImageError, match=f"{MAX_PIXELS} pixels.*20000x20000"):
        read_image(png_bomb(20_000, 20_000))
    with pytest.raises(InvalidImageError, match=r"at most 3839 pixels.*80x48"):
        read_image(encode(".jpg", image), max_pixels=80 * 48 - 1)


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.truncate(4 * MAX_PIXELS + 1)
    with pytest.raises(InvalidImageError, match="is it a video"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_declared_size(suffix: str, image: NDArray[np.uint8]) -> None:
    assert declared_size(encode(suffix, image)) == (80, 48)


def test_declared_size_of_each_kind(image: NDArray[np.uint8]) -> None:
    lossless = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    assert lossless[12:16] == b"VP8L"
    assert declared_size(lossless) == (80, 48)
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert declared_size(progressive) == (80, 48)
    assert declared_size(with_orientation(encode(".jpg", image), 6)) == (80, 48)
    assert declared_size(b"GIF89a" + struct.pack("<HH", 300, 200)) == (300, 200)
    assert declared_size(b"BM" + bytes(12) + struct.pack("<Iii", 40, 7, -9)) == (7, 9)
    assert declared_size(b"BM" + bytes(12) + struct.pack("<IHH", 12, 7, 9)) == (7, 9)
    extended = b"RIFF0000WEBPVP8X" + bytes(8) + b"\x0f\x27\0" + b"\x1f\x4e\0"
    assert declared_size(extended) == (10_000, 20_000)
    assert declared_size(b"II*\0") is None


def test_every_cut_of_a_header_is_survived(image: NDArray[np.uint8]) -> None:
    for suffix in FORMATS:
        data = encode(suffix, image)
        for length in range(200):
            declared_size(data[:length])
