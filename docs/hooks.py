"""Lets mkdocstrings find the package as a wheel lays it out.

runtimes/, converters/ and calibration/ stand at the top of the repository, but are documented by
their installed names, edgeface.runtimes and so on: links in a temporary folder make it so.
"""

import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

ROOT = Path(__file__).parents[1]
_TREE = tempfile.TemporaryDirectory()


@event_priority(100)
def on_config(config: Any) -> None:
    """Point the Python handler, before it starts, at a folder that holds edgeface whole."""
    package = Path(_TREE.name) / "edgeface"
    if not package.exists():
        package.mkdir()
        mapped = [ROOT / name for name in ("runtimes", "converters", "calibration")]
        for part in [*(ROOT / "edgeface").iterdir(), *mapped]:
            (package / part.name).symlink_to(part)
    handlers = config.plugins["mkdocstrings"].config.handlers
    handlers.setdefault("python", {})["paths"] = [_TREE.name]
