"""The documentation's code and commands run as they stand.

A block below a comment `<!-- not run: why -->` is left out, and so is everything in a `text` block.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"(<!-- not run: .+? -->\n+)?^```(python|bash)\n(.*?)^```$", re.M | re.S)


def blocks(language: str) -> Iterator[object]:
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match[2] == language and not match[1]:
                line = text[: match.start(3)].count("\n") + 1
                yield pytest.param(match[3], line, id=f"{page.relative_to(DOCS)}:{line}")


@pytest.fixture(scope="module")
def folder(astronaut: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages name: photo.jpg, clip.mp4, frames/ and photos/."""
    root = tmp_path_factory.mktemp("docs")
    for name in ("photo.jpg", "frames/1.jpg", "photos/1.jpg", "photos/deeper/2.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), astronaut)
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    clip = cv2.VideoWriter(str(root / "clip.mp4"), codec, 10, (512, 512))
    for shift in range(12):
        clip.write(np.roll(astronaut, 4 * shift, axis=1))
    clip.release()
    return root


@pytest.mark.parametrize(("code", "line"), list(blocks("python")))
def test_python(code: str, line: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile("\n" * (line - 1) + code, "docs", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(("code", "line"), list(blocks("bash")))
def test_commands(code: str, line: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for command in code.replace("\\\n", " ").splitlines():
        if command.startswith("edgeface "):
            assert main(shlex.split(command, comments=True)[1:]) == 0, command


def test_every_page_is_reached() -> None:
    assert len(list(blocks("python"))) > 10
    assert len(list(blocks("bash"))) > 3
