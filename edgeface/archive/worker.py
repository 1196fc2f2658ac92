"""What each actor does: detect in the files of one shard and write it."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from edgeface.archive.places import fetch, is_video, local_copy, write_whole
from edgeface.detector import Detector
from edgeface.errors import EdgeFaceError, InferenceError, InvalidImageError
from edgeface.imageio import read_image
from edgeface.outputs import FACE_COLUMNS, Shot, face_rows
from edgeface.video import Video

if TYPE_CHECKING:
    import pyarrow as pa

FETCHERS = 4
UNTRACKED = FACE_COLUMNS[:-1]


def shard_name(shard: int) -> str:
    """Return the file of a shard, from 0."""
    return f"part-{shard:06d}.parquet"


def schema() -> pa.Schema:
    """Return the columns of a shard: one row per picture, per frame, or per file that failed."""
    import pyarrow as pa

    face = pa.struct([(name, pa.float32()) for name in UNTRACKED])
    return pa.schema(
        [
            pa.field("file", pa.string(), nullable=False),
            ("frame", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("error", pa.string()),
            ("faces", pa.list_(face)),
        ]
    )


class Worker:
    """One detector; Ray Data calls it with one shard after another.

    Args:
        out: folder or address of the shards.
        options: keyword arguments of ``Detector``.
    """

    def __init__(self, out: str, options: Mapping[str, Any]) -> None:
        cv2.setNumThreads(options["threads"])
        self._out = out
        self._options = options
        self._detector: Detector | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Detect in ``row["files"]``, write shard ``row["shard"]`` and say what it holds.

        What stops the whole run comes back as the name of an error and its message, because Ray
        would bury an exception in tracebacks of its own.
        """
        files = [str(file) for file in row["files"]]
        receipt: dict[str, Any] = {
            "shard": int(row["shard"]),
            "inputs": len(files),
            "faces": 0,
            "errors": [],
        }
        try:
            self._detector = self._detector or Detector(**self._options)
            records = list(_detect_all(self._detector, files))
            self._write(receipt["shard"], records)
        except EdgeFaceError as error:
            return {**receipt, "stopped": type(error).__name__, "message": str(error)}
        faces = sum(len(record.get("faces", ())) for record in records)
        errors = [f"{record['file']}: {record['error']}" for record in records if "error" in record]
        return {**receipt, "faces": faces, "errors": errors, "stopped": "", "message": ""}

    def _write(self, shard: int, records: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        data = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(records, schema()), data, compression="zstd")
        write_whole(self._out, shard_name(shard), data.getvalue())


def _detect_all(detector: Detector, files: list[str]) -> Iterator[dict[str, Any]]:
    with ThreadPoolExecutor(FETCHERS) as pool:
        fetched: deque[Future[bytes | Path] | None] = deque(
            None if is_video(file) else pool.submit(fetch, file) for file in files
        )
        for file in files:
            content = fetched.popleft()
            try:
                if content is None:
                    shots = _video(detector, file)
                else:
                    shots = [_picture(detector, file, content.result())]
            except (InvalidImageError, InferenceError) as error:
                yield {"file": file, "error": str(error)}
            else:
                yield from map(_record, shots)


def _picture(detector: Detector, file: str, content: bytes | Path) -> Shot:
    image = read_image(content)
    height, width = image.shape[:2]
    return Shot(file, detector(image), width, height)


def _video(detector: Detector, file: str) -> list[Shot]:
    shots: list[Shot] = []
    with local_copy(file) as path, Video(path) as video:
        for image in video:
            height, width = image.shape[:2]
            shots.append(Shot(file, detector(image), width, height, len(shots)))
    return shots


def _record(shot: Shot) -> dict[str, Any]:
    faces = [dict(zip(UNTRACKED, row[:-1], strict=True)) for row in face_rows(shot.faces)]
    size = {"width": shot.width, "height": shot.height}
    return {"file": shot.file, "frame": shot.frame, **size, "faces": faces}
