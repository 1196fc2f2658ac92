"""The package's front door: lazy names, the version, and a source checkout without an install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import edgeface

ROOT = Path(__file__).parents[1]


def run(code: str, folder: Path, *path: Path) -> str:
    """Run code as a Python without edgeface installed would; -S keeps editable installs away."""
    libraries = Path(np.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, libraries)))}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_mapped_folders_are_found_in_a_checkout() -> None:
    code = "import edgeface.runtimes.base as m, edgeface.converters; print(m.__file__)"
    assert Path(run(code, ROOT)) == ROOT / "runtimes" / "base.py"


def test_an_installed_package_looks_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "edgeface").mkdir()
    shutil.copy(ROOT / "edgeface/__init__.py", tmp_path / "edgeface")
    code = "import edgeface; print(len(list(edgeface.__path__)))"
    assert run(code, tmp_path) == "1"
    (tmp_path / "pyproject.toml").touch()
    assert run(code, tmp_path) == "2"


def test_import_loads_nothing_until_used() -> None:
    code = "import edgeface, sys; print(*[m for m in ('numpy', 'cv2') if m in sys.modules])"
    assert run(code, ROOT) == ""


def test_names() -> None:
    from edgeface.detector import Detector
    from edgeface.errors import EdgeFaceError
    from edgeface.faces import Faces

    assert edgeface.Detector is Detector
    assert edgeface.Faces is Faces
    assert edgeface.EdgeFaceError is EdgeFaceError
    assert set(edgeface.__all__) <= set(dir(edgeface))
    with pytest.raises(AttributeError, match="Detecter"):
        _ = edgeface.Detecter


def test_version() -> None:
    assert edgeface.__version__ == version("edgeface")
    assert run("import edgeface; print(edgeface.__version__)", ROOT) != ""
