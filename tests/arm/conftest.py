"""Fixtures of the emulated boards.

EDGEFACE_ARM=1 turns these tests on, as ``.ci/run`` does: they take minutes, and need root, apt and
the package index.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def wanted() -> None:
    """Skip, unless these tests are asked for."""
    if not os.environ.get("EDGEFACE_ARM"):
        pytest.skip("EDGEFACE_ARM=1 turns on the tests on emulated ARM boards")


@pytest.fixture(scope="session")
def emulator() -> ModuleType:
    """The module ``board.py``."""
    spec = spec_from_file_location("board", Path(__file__).with_name("board.py"))
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules["board"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def board_root(
    wanted: None, emulator: ModuleType, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The root file system of a board with the wheel installed, the picture in /root."""
    if problem := emulator.why_not():
        pytest.skip(problem)
    root = tmp_path_factory.mktemp("board") / "root"
    emulator.build(root, wheel)
    shutil.copy(Path(__file__).parents[2] / "docs/astronaut.jpg", root / "root")
    shutil.copy(Path(__file__).with_name("detect.py"), root / "root")
    yield root
    shutil.rmtree(root)
