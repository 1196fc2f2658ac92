"""Which files a command reads, and which it may write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeface.errors import InvalidOptionError
from edgeface.imageio import PICTURES, VIDEOS
from edgeface.outputs import OUTPUTS, numbered

SAMPLE = "astronaut.png"


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        name: what is printed and recorded.
        path: the file; None is the sample picture.
        relative: where its drawing goes below an output folder.
    """

    name: str
    path: Path | None
    relative: Path

    @property
    def is_video(self) -> bool:
        """Whether the file's suffix is a video's."""
        return self.relative.suffix.lower() in VIDEOS

    @property
    def drawing_suffixes(self) -> frozenset[str]:
        """Suffixes of the files that its drawing can be written to."""
        return frozenset({".mp4"}) if self.is_video else PICTURES

    def drawing_in(self, folder: Path) -> Path:
        """Name the drawing like the input; an unwritable format gets .mp4 or .png appended."""
        target = folder / self.relative
        if target.suffix.lower() in self.drawing_suffixes:
            return target
        return target.with_name(target.name + (".mp4" if self.is_video else ".png"))


def collect(inputs: Iterable[str], *, recursive: bool, sample: bool) -> list[Source]:
    """Turn arguments into sources; a folder gives its pictures and videos, sorted.

    Raises:
        InvalidOptionError: a folder holds neither.
    """
    sources = [source for name in inputs for source in _expand(Path(name), recursive)]
    return [*sources, Source(SAMPLE, None, Path(SAMPLE))] if sample else sources


def _expand(path: Path, recursive: bool) -> Iterator[Source]:
    if not path.is_dir():
        yield Source(str(path), path, Path(path.name))
        return
    files = sorted(
        file
        for file in (path.rglob("*") if recursive else path.iterdir())
        if file.suffix.lower() in PICTURES | VIDEOS and file.is_file()
    )
    if not files:
        remedy = "check the folder" if recursive else "add --recursive to enter its folders"
        raise InvalidOptionError(f"expected pictures or videos in {path}, got none; {remedy}")
    for file in files:
        yield Source(str(file), file, file.relative_to(path))


def plan_drawings(sources: list[Source], out: Path, *, into_folder: bool) -> list[Path]:
    """Name each source's drawing: --out itself for a single file, else a file below it.

    Raises:
        InvalidOptionError: a drawing would overwrite an input or another drawing, is of a format
            that cannot be written, or stands where nothing can be written.
    """
    if into_folder or len(sources) > 1 or out.is_dir() or not out.suffix:
        targets = [source.drawing_in(out) for source in sources]
    else:
        targets = [out]
    taken = {source.path.resolve() for source in sources if source.path is not None}
    for source, target in zip(sources, targets, strict=True):
        if target.suffix.lower() not in source.drawing_suffixes:
            raise InvalidOptionError(
                f"expected --out for {source.name} to end in "
                f"{', '.join(sorted(source.drawing_suffixes))}, got {target}"
            )
        if target.resolve() in taken:
            raise InvalidOptionError(
                f"expected a new file for the drawing of {source.name}, got {target}, which is an "
                "input or another drawing; choose another --out"
            )
        taken.add(target.resolve())
        check_writable("--out", target)
    return targets


def check_writable(option: str, path: Path) -> None:
    """Refuse, before any work, a file that could not be written after it.

    Raises:
        InvalidOptionError: it is a folder, or its folder is not one or is read-only.
    """
    ancestor = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise InvalidOptionError(
            f"expected {option} to name a file that can be written, got {path}; "
            "choose a file in a folder of yours"
        )


def check_outputs(paths: Mapping[str, Path], sources: list[Source]) -> None:
    """Refuse, before any work, outputs that could not be written after it.

    Raises:
        InvalidOptionError: a place cannot be written, or is an input or another output.
    """
    taken = {source.path.resolve(): source.name for source in sources if source.path is not None}
    for name, path in paths.items():
        targets = [(path, f"--{name}")]
        if OUTPUTS[name].is_folder:
            targets = [(path / _label(source), source.name) for source in sources]
        for target, origin in targets:
            check_writable(f"--{name}", target)
            other = taken.setdefault(target.resolve(), origin)
            if other is not origin:
                raise InvalidOptionError(
                    f"expected a new file for --{name}, got {target}, which belongs to {other}; "
                    "choose another place, or rename one of the inputs"
                )


def _label(source: Source) -> str:
    return f"{numbered(source.relative.with_suffix(''), 0 if source.is_video else None)}.txt"
