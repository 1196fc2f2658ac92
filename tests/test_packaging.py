"""What the wheel holds, and what it asks for."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAPPED = ("runtimes", "converters", "calibration")
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(installed: Path) -> email.message.Message:
    return email.message_from_string(next(installed.glob("*.dist-info/METADATA")).read_text())


def test_holds_the_package_alone(names: set[str], metadata: email.message.Message) -> None:
    info = f"edgeface-{metadata['Version']}.dist-info/"
    assert {name for name in names if not name.startswith(("edgeface/", info))} == set()
    assert "edgeface/py.typed" in names
    assert info + "licenses/LICENSE" in names


def test_holds_every_module(names: set[str]) -> None:
    sources = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("edgeface/**/*.py")}
    for folder in MAPPED:
        sources |= {
            f"edgeface/{path.relative_to(ROOT).as_posix()}"
            for path in ROOT.glob(f"{folder}/**/*.py")
        }
    assert {name for name in names if name.endswith(".py")} == sources


def test_holds_the_bundles_and_no_data(installed: Path, wheel: Path) -> None:
    manifests = list(installed.glob("edgeface/models/*/manifest.json"))
    assert "retinaface_mobilenet025" in {manifest.parent.name for manifest in manifests}
    expected = {installed / "edgeface/py.typed"}
    expected |= {installed / f"edgeface/server/page.{kind}" for kind in ("html", "css", "js")}
    expected |= set(installed.glob("edgeface/models/*.md"))
    expected.add(installed / "edgeface/runtimes/nvidia/letterbox.cu")
    for manifest in manifests:
        expected |= {manifest, manifest.with_name("MODEL_CARD.md")}
        expected |= set(manifest.parent.glob("conversion.*"))
        artifacts = json.loads(manifest.read_text())["artifacts"]
        assert {"onnx", "tflite"} <= {artifact["format"] for artifact in artifacts}
        expected |= {manifest.with_name(artifact["file"]) for artifact in artifacts}
    files = {path for path in installed.glob("edgeface/**/*") if path.is_file()}
    assert {path for path in files if path.suffix != ".py"} == expected
    assert wheel.stat().st_size < 80 * MEGABYTE


def test_bundles_load_from_the_wheel(installed: Path) -> None:
    code = """
import edgeface
from edgeface.bundle import load_bundle, shipped_models
for bundle in map(load_bundle, shipped_models()):
    for artifact in bundle.artifacts:
        bundle.open(artifact)
    print(bundle.name, bundle.path)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=installed, check=True, capture_output=True, text=True
    )
    assert f"retinaface_mobilenet025 {installed}" in done.stdout


def test_core_is_light_and_extras_are_named(metadata: email.message.Message) -> None:
    requirements = metadata.get_all("Requires-Dist", [])
    core = {requirement for requirement in requirements if "extra ==" not in requirement}
    assert {re.split("[>;]", requirement)[0] for requirement in core} == {
        "numpy", "opencv-python-headless", "onnxruntime", "ai-edge-litert",
    }  # fmt: skip
    marked = {re.split("[>;]", one)[0]: one.split("; ")[1] for one in core if ";" in one}
    assert marked == {
        "onnxruntime": 'platform_machine != "aarch64"',
        "ai-edge-litert": 'platform_machine == "aarch64"',
    }
    extras = metadata.get_all("Provides-Extra", [])
    for extra in (
        "openvino",
        "tflite",
        "tensorrt",
        "tensorrt-rtx",
        "train",
        "convert",
        "samples",
        "dev",
        "all",
    ):
        assert extra in extras


def test_command_is_installed(installed: Path) -> None:
    entry_points = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert "edgeface = edgeface.cli.main:main" in entry_points


@pytest.mark.parametrize("name", MAPPED)
def test_mapped_folder_refuses_its_bare_name(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"ImportError: import this package as 'edgeface.{name}'" in done.stderr
