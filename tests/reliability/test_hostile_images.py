"""Mutated picture files, decompression bombs, and EXIF orientations."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.errors import InvalidImageError
from edgeface.imageio import read_image

ROOT = Path(__file__).parents[2]
PORTRAIT = np.asarray(cv2.imread(str(ROOT / "docs" / "astronaut.jpg")), np.uint8)
# What a viewer does to show a picture that is stored with each EXIF orientation, undone.
STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.skipif(sys.platform == "win32", reason="measures memory as Unix does")
def test_mutated_files_are_read_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from fuzz_images import fuzz

    tally = fuzz(6000, seed=int.from_bytes(b"CI"))
    assert tally.failures == []
    assert sum(tally.outcomes.values()) == 6000
    for name in ("JPEG", "WebP", "GIF", "BMP", "TIFF"):
        assert tally.outcomes[f"{name} read"] > 0
        assert tally.outcomes[f"{name} refused"] > 0


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    made = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + made


def tiff(width: int, height: int, order: str) -> bytes:
    entries = [(256, 4, 1, width), (257, 4, 1, height)]
    body = struct.pack(f"{order}H", len(entries))
    body += b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", 8) + body + struct.pack(f"{order}I", 0)


BOMBS = {
    "PNG": png(
        (b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(10_000))),
        (b"IEND", b""),
    ),
    "GIF": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(30),
    "JPEG": b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 17, 8, 65000, 65000) + b"\0\xff\xd9",
    "WebP": b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2 + bytes(30),
    "BMP": b"BM" + bytes(12) + struct.pack("<Iii", 40, 60_000, -60_000) + bytes(40),
    "Netpbm": b"P6 # a comment\n100000 100000 255\n" + bytes(100),
    "TIFF": tiff(90_000, 90_000, "<"),
    "TIFF of the other order": tiff(90_000, 90_000, ">"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_what_its_header_declares(kind: str) -> None:
    with pytest.raises(InvalidImageError, match="at most 100000000 pixels"):
        read_image(BOMBS[kind])


def test_a_chunk_that_claims_gigabytes_is_refused_before_decoding() -> None:
    whole = bytearray(cv2.imencode(".png", PORTRAIT[:40, :50])[1])
    at = whole.index(b"IDAT") - 4
    whole[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "big")
    with pytest.raises(InvalidImageError, match="truncated or damaged"):
        read_image(bytes(whole))


def test_a_format_whose_header_edgeface_cannot_read_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="no known picture format"):
        read_image(b"#?RADIANCE\n\n-Y 100000 +X 100000\n" + bytes(100))


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with Detector("onnxruntime", precision="fp32", threads=1) as opened:
        yield opened


def as_jpeg(image: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1])


def with_orientation(image: NDArray[np.uint8], orientation: int) -> bytes:
    jpeg = as_jpeg(image)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_gives_the_same_faces(orientation: int, detector: Detector) -> None:
    image = np.ascontiguousarray(PORTRAIT[:, :480])
    [expected] = detector(as_jpeg(image))
    stored = np.ascontiguousarray(STORED[orientation](image))
    [face] = detector(with_orientation(stored, orientation))
    np.testing.assert_allclose(face.box, expected.box, atol=2)
    np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=2)
