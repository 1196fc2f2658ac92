"""Detections as files: one writer per format, one registry of them.

    with OUTPUTS["jsonl"]("faces.jsonl") as output:
        output.add(Shot("photo.jpg", faces, width, height))

Formats of lines (JSON Lines, CSV) are valid up to the last shot at any moment; YOLO and WIDER
write one whole file per shot; JSON and COCO appear whole when the ``with`` block ends well.
"""

from edgeface.outputs.base import Output, Shot, numbered
from edgeface.outputs.datasets import Coco, Wider, Yolo
from edgeface.outputs.records import FACE_COLUMNS, Csv, Json, JsonLines, face_rows

OUTPUTS: dict[str, type[Output]] = {
    "json": Json,
    "jsonl": JsonLines,
    "csv": Csv,
    "coco": Coco,
    "yolo": Yolo,
    "wider": Wider,
}

__all__ = [
    "FACE_COLUMNS",
    "OUTPUTS",
    "Coco",
    "Csv",
    "Json",
    "JsonLines",
    "Output",
    "Shot",
    "Wider",
    "Yolo",
    "face_rows",
    "numbered",
]
