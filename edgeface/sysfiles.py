"""The kernel's small text files, of which any may be absent."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str:
    """Return a file's text, or "" where it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def integer(path: Path) -> int:
    """Return the whole number that a file holds, or 0 where it holds none."""
    try:
        return int(text(path))
    except ValueError:
        return 0
