"""What edgeface keeps between runs: compiled models and verdicts on backends.

The newest entries of each kind stay. Best effort: without a writable home, or where an entry is
damaged, the work is simply done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from edgeface.bundle import write_atomic

_KEPT = 32


def cache_dir() -> Path | None:
    """The user's cache folder for edgeface (XDG base directories), or None without a home."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "edgeface"
    except RuntimeError:
        return None


def recall(kind: str, *key: object) -> bytes | None:
    """Return what ``remember`` kept under that key, or None where it is absent or damaged."""
    path = _path(kind, key)
    if path is None:
        return None
    try:
        digest, _, data = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if digest == hashlib.sha256(data).hexdigest().encode():
        return data
    forget(kind, *key)
    return None


def forget(kind: str, *key: object) -> None:
    """Remove what ``remember`` kept under that key, if anything."""
    path = _path(kind, key)
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink()


def remember(kind: str, *key: object, data: bytes) -> None:
    """Keep data under a key: ``kind`` is the folder, the rest names everything it depends on."""
    path = _path(kind, key)
    if path is None:
        return
    with contextlib.suppress(OSError):
        write_atomic(path, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        oldest_first = sorted(path.parent.iterdir(), key=lambda entry: entry.stat().st_mtime)
        for entry in oldest_first[:-_KEPT]:
            entry.unlink()


def _path(kind: str, key: tuple[object, ...]) -> Path | None:
    folder = cache_dir()
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    return folder / kind / name if folder else None
