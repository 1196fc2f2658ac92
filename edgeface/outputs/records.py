"""JSON, JSON Lines and CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from typing import Any

from edgeface.faces import LANDMARK_NAMES, Faces
from edgeface.outputs.base import Output, Shot, write_text, writing

Record = dict[str, Any]
FACE_COLUMNS = (
    *("x1", "y1", "x2", "y2", "score"),
    *(f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"),
    "track_id",
)


def face_rows(faces: Faces) -> Iterator[list[Any]]:
    """Yield each face as a row of ``FACE_COLUMNS``; None where it has no such value."""
    for face in faces.to_dict()["faces"]:
        points = [value for point in face.get("landmarks", {}).values() for value in point]
        points = points or [None] * (2 * len(LANDMARK_NAMES))
        yield [*face["box"], face["score"], *points, face.get("track_id")]


class Json(Output):
    """A list with one record per input; a video's record holds its frames."""

    about = "boxes, scores and landmarks of every input"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._records: list[Record] = []

    def add(self, shot: Shot) -> None:
        """Take one picture or frame; frame 0 begins a video."""
        size: Record = {"file": shot.file, "width": shot.width, "height": shot.height}
        if shot.frame is None:
            self._records.append({**size, **shot.faces.to_dict()})
            return
        last = self._records[-1] if self._records else {}
        if shot.frame == 0 or last.get("file") != shot.file or "frames" not in last:
            last = {**size, "fps": shot.fps, "frames": []}
            self._records.append(last)
        last["frames"].append({"frame": shot.frame, **shot.faces.to_dict()})

    def fail(self, file: str, error: Exception) -> None:
        """Take an input that failed."""
        self._records.append({"file": file, "error": str(error)})

    def finish(self) -> None:
        """Write the file."""
        write_text(self.path, json.dumps(self._records, indent=2) + "\n")


class _Lines(Output):
    """A file that grows by whole lines, and is cut back to them where one cannot be written."""

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        super().__init__(path)
        self._end = 0
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if append and self.path.exists():
                with self.path.open("rb") as lines:
                    self._end = sum(len(line) for line in lines if line.endswith(b"\n"))
                os.truncate(self.path, self._end)
            self._file = self.path.open("ab" if append else "wb", buffering=0)

    def _append(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        with writing(self.path):
            try:
                written = 0
                while written < len(data):
                    written += self._file.write(data[written:])
            except BaseException:
                self._file.seek(self._file.truncate(self._end))
                raise
        self._end += len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonLines(_Lines):
    """One line per picture or frame, in the file as soon as it is added.

    Args:
        path: the file.
        append: go on after the last whole line of a file that exists.
    """

    about = "the same, one line per picture or frame, written as it is found"

    def add(self, shot: Shot) -> None:
        """Write a line: file, frame (of a video), width, height, faces."""
        frame = {} if shot.frame is None else {"frame": shot.frame}
        size = {"width": shot.width, "height": shot.height}
        record = {"file": shot.file, **frame, **size, **shot.faces.to_dict()}
        self._append(json.dumps(record) + "\n")

    def fail(self, file: str, error: Exception) -> None:
        """Write a line: file, error."""
        self._append(json.dumps({"file": file, "error": str(error)}) + "\n")


class Csv(_Lines):
    """One row per face, in pixels; ``frame`` is empty for pictures."""

    about = "the same as a table, one row per face, written as they are found"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._append(_csv([["file", "frame", *FACE_COLUMNS]]))

    def add(self, shot: Shot) -> None:
        """Write a row per face."""
        self._append(_csv([[shot.file, shot.frame, *row] for row in face_rows(shot.faces)]))


def _csv(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
