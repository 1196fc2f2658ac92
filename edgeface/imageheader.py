"""What a picture file's header declares, read without decoding it.

Formats: PNG (W3C PNG 3), JPEG (ITU T.81), GIF89a, WebP (RFC 9649), BMP, TIFF 6.0 and Netpbm.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_PNG, _PNG_CHUNK_FRAME = b"\x89PNG\r\n\x1a\n", 12
_NETPBM = re.compile(rb"P[1-6](?:\s|#[^\n]{0,999}\n)+(\d{1,9})\s+(\d{1,9})\s")
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SHORT = 256, 257, 3


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Return the (width, height) that the header declares, or None where it is unknown."""
    try:
        return _size(data)
    except (struct.error, IndexError):
        return None


def is_cut(data: bytes) -> bool:
    """Tell whether a JPEG or PNG ends before it says it does.

    Some decoders fill the rest of a cut JPEG with grey, and OpenCV's reserves as many gigabytes
    for a PNG as a chunk's length claims.
    """
    if data.startswith(b"\xff\xd8"):
        return data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN)
    return data.startswith(_PNG) and _is_cut_png(data)


def _is_cut_png(data: bytes) -> bool:
    position = len(_PNG)
    while position + _PNG_CHUNK_FRAME <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += _PNG_CHUNK_FRAME + length
        if kind == b"IEND":
            break
    return position > len(data)


def _size(data: bytes) -> tuple[int, int] | None:
    if data.startswith(_PNG):
        width, height = struct.unpack_from(">II", data, 16)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", data, 6)
    elif data.startswith(b"BM"):
        core = struct.unpack_from("<I", data, 14)[0] == 12
        width, height = struct.unpack_from("<HH" if core else "<ii", data, 18)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_size(data)
    elif data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    elif netpbm := _NETPBM.match(data):
        width, height = int(netpbm[1]), int(netpbm[2])
    elif data[:4] in _TIFF_ORDERS:
        return _tiff_size(data, _TIFF_ORDERS[data[:4]])
    else:
        return None
    return abs(width), abs(height)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes, order: str) -> tuple[int, int] | None:
    """Largest width and height of all pages."""
    sides = {_TIFF_WIDTH: 0, _TIFF_HEIGHT: 0}
    seen: set[int] = set()
    page = int(struct.unpack_from(f"{order}I", data, 4)[0])
    while page and page not in seen:
        seen.add(page)
        entries = int(struct.unpack_from(f"{order}H", data, page)[0])
        for entry in range(page + 2, page + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, entry)
            if tag in sides:
                form = "H" if kind == _TIFF_SHORT else "I"
                value = int(struct.unpack_from(f"{order}{form}", data, entry + 8)[0])
                sides[tag] = max(sides[tag], value)
        page = int(struct.unpack_from(f"{order}I", data, page + 2 + 12 * entries)[0])
    width, height = sides.values()
    return (width, height) if width and height else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    for marker, position in _jpeg_segments(data):
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker and the position of its 0xFF, up to the first scan."""
    position = 2
    while data[position] == 0xFF and data[position + 1] != _START_OF_SCAN[1]:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        yield marker, position
        position += 2 + int(struct.unpack_from(">H", data, position + 2)[0])
