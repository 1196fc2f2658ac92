"""Whether an ONNX file keeps weights in other files, read without the package onnx.

Such a file could make a runtime read any file that the process may read; a bundle's artifacts hold
their weights themselves. The numbers are those of the fields in ONNX's protocol buffers.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
TENSOR, EXTERNAL_DATA, DATA_LOCATION = "tensor", 13, 14
# Message kind to the kinds of the fields in it that can hold tensors.
CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: TENSOR, 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {
        5: TENSOR, 6: "graph", 10: TENSOR, 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: TENSOR, 2: TENSOR},
}  # fmt: skip


def has_external_data(data: bytes) -> bool:
    """Tell whether any tensor of an ONNX model lies outside the file.

    Raises:
        ValueError: the bytes are no protocol buffer.
    """
    pending: list[tuple[str, memoryview]] = [("model", memoryview(data))]
    while pending:
        kind, message = pending.pop()
        for number, value in _fields(message):
            if kind == TENSOR:
                if number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0):
                    return True
            elif number in CHILDREN[kind] and isinstance(value, memoryview):
                pending.append((CHILDREN[kind][number], value))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field; values of fixed width are left out."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, position = _varint(message, position)
            yield number, value
        elif wire == BYTES:
            size, position = _varint(message, position)
            if position + size > len(message):
                raise ValueError("a field is longer than its message")
            yield number, message[position : position + size]
            position += size
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is cut off")
