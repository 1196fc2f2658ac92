"""What writers take, what they share, and how files come to be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import ClassVar

from edgeface.bundle import write_atomic
from edgeface.errors import OutputError
from edgeface.faces import Faces


@dataclass(frozen=True)
class Shot:
    """One picture, or one frame of a video, and what was found in it.

    Attributes:
        file: name of the file that it comes from.
        faces: boxes in pixels of it.
        width: pixels of a row.
        height: rows.
        frame: number of the frame in its video, from 0; None: a picture.
        fps: frames a second of its video; 0 where not known.
        relative: path that names it below an output folder; None: the file's own name.
    """

    file: str
    faces: Faces
    width: int
    height: int
    frame: int | None = None
    fps: float = 0.0
    relative: PurePath | None = None

    @property
    def name(self) -> PurePath:
        """``relative``, or the file's own name."""
        return self.relative or PurePath(PurePath(self.file).name)

    @property
    def stem(self) -> PurePath:
        """``name`` without suffix; of a frame with its number: ``clip_000003``."""
        return numbered(self.name.with_suffix(""), self.frame)


def numbered(path: PurePath, frame: int | None) -> PurePath:
    """Append a frame's number to a name; None: a picture, which keeps its own."""
    return path if frame is None else path.with_name(f"{path.name}_{frame:06d}")


class Output:
    """Base of the writers: a context manager that takes shots.

    Leaving the ``with`` block by an exception keeps what is whole and drops the rest.

    Args:
        path: the file, or for formats of one file per shot the folder. Folders are made.

    Attributes:
        about: what the format is, in a few words.
        is_folder: whether ``path`` is a folder.

    Raises:
        OutputError: nothing can be written there; also by ``add``, ``fail`` and the block's end.
    """

    about: ClassVar[str]
    is_folder: ClassVar[bool] = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def add(self, shot: Shot) -> None:
        """Take one picture or frame."""
        raise NotImplementedError

    def fail(self, file: str, error: Exception) -> None:
        """Take an input that failed; formats without a place for errors leave it out."""

    def finish(self) -> None:
        """Write what was held back."""

    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()


def write_text(path: Path, text: str) -> None:
    """Write a file whole; names that are no UTF-8 come out as the bytes that they are.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path):
        write_atomic(path, text.encode("utf-8", "surrogateescape"))


@contextmanager
def writing(path: object) -> Iterator[None]:
    """Turn what the system says about a write into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"expected to write {path}, but it cannot be written "
            f"({error.strerror or error}); free some space or choose another place"
        ) from error
