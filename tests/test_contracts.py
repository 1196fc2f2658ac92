"""Who may import whom, and what an application pays for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "tensorflow", "onnx", "edgeface.nets", "edgeface.training", "edgeface.converters")
VENDORS = ("openvino", "ai_edge_litert", "tensorrt")


def run(code: str) -> str:
    """Run code away from the checkout's root, so that it imports the installed package."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str) -> set[str]:
    return set(run(f"{code}\nimport sys\nprint(*sys.modules)").split())


def test_import_loads_no_heavy_library() -> None:
    assert not loaded("import edgeface") & {*HEAVY, *VENDORS, "onnxruntime"}


def test_import_is_fast() -> None:
    code = """
import time, numpy, cv2
start = time.process_time()
import edgeface
edgeface.Detector
print(time.process_time() - start)
"""
    assert min(float(run(code)) for _ in range(3)) < 0.3


@pytest.mark.parametrize(
    ("backend", "unwanted"),
    [("auto", HEAVY), ("onnxruntime", (*HEAVY, *VENDORS)), ("openvino", HEAVY), ("tflite", HEAVY)],
)
def test_detecting_loads_no_torch(backend: str, unwanted: tuple[str, ...]) -> None:
    if backend in ("openvino", "tflite"):
        pytest.importorskip({"openvino": "openvino", "tflite": "ai_edge_litert"}[backend])
    modules = loaded(f"""
import numpy, edgeface
with edgeface.Detector({backend!r}) as detector:
    detector(numpy.zeros((96, 128, 3), numpy.uint8))
""")
    assert "edgeface.detector" in modules
    assert not modules & set(unwanted)


def test_commands_help_without_heavy_libraries() -> None:
    modules = loaded("from edgeface.cli.main import build_parser; build_parser().format_help()")
    assert "edgeface.cli.detect" in modules
    assert not modules & {*HEAVY, *VENDORS, "onnxruntime"}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run([command, *options], cwd=folder, capture_output=True, text=True)


def test_import_contracts_hold(installed: Path) -> None:
    pytest.importorskip("importlinter")
    done = lint_imports(installed)
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("faces.py", "import torch", "SDK"),
        ("preprocess.py", "import edgeface.detector", "one direction"),
        ("detector.py", "import openvino", "own runtime"),
        ("runtimes/openvino.py", "import edgeface.runtimes.onnxruntime", "neither each other"),
        ("evaluation/__init__.py", "import edgeface.nets", "torch-free"),
    ],
)
def test_import_contracts_catch(
    installed: Path, tmp_path: Path, module: str, line: str, contract: str
) -> None:
    pytest.importorskip("importlinter")
    shutil.copytree(installed / "edgeface", tmp_path / "edgeface")
    with (tmp_path / "edgeface" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert contract in done.stdout[done.stdout.index("Broken contracts") :]
