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
from edgeface.errors import InferenceError, InvalidImageError
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
        self._detector = Detector(**options)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Detect in ``row["files"]``, write shard ``row["shard"]`` and say what it holds."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        records = list(self._detect_all([str(file) for file in row["files"]]))
        data = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(records, schema()), data, compression="zstd")
        write_whole(self._out, shard_name(int(row["shard"])), data.getvalue())
        return {
            "shard": int(row["shard"]),
            "inputs": len(row["files"]),
            "faces": sum(len(record.get("faces", ())) for record in records),
            "errors": [
                f"{record['file']}: {record['error']}" for record in records if "error" in record
            ],
        }

    def _detect_all(self, files: list[str]) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(FETCHERS) as pool:
            fetched: deque[Future[bytes | Path] | None] = deque(
                None if is_video(file) else pool.submit(fetch, file) for file in files
            )
            for file in files:
                content = fetched.popleft()
                try:
                    shots = self._video(file) if content is None else self._picture(file, content)
                except (InvalidImageError, InferenceError) as error:
                    yield {"file": file, "error": str(error)}
                else:
                    yield from map(_record, shots)

    def _picture(self, file: str, content: Future[bytes | Path]) -> list[Shot]:
        image = read_image(content.result())
        height, width = image.shape[:2]
        return [Shot(file, self._detector(image), width, height)]

    def _video(self, file: str) -> list[Shot]:
        shots: list[Shot] = []
        with local_copy(file) as path, Video(path) as video:
            for image in video:
                height, width = image.shape[:2]
                shots.append(Shot(file, self._detector(image), width, height, len(shots)))
        return shots


def _record(shot: Shot) -> dict[str, Any]:
    faces = [dict(zip(UNTRACKED, row[:-1], strict=True)) for row in face_rows(shot.faces)]
    size = {"width": shot.width, "height": shot.height}
    return {"file": shot.file, "frame": shot.frame, **size, "faces": faces}
