"""What pip brings to a board: resolved for aarch64, and measured as installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PIP = Path(__file__).with_name("board_pip.py")
# What LiteRT itself asks for, beside NumPy.
OF_LITERT = {
    "backports-strenum", "flatbuffers", "ml-dtypes", "protobuf", "tqdm", "typing-extensions",
}  # fmt: skip
LEAST = {"edgeface", "numpy", "opencv-python-headless", "ai-edge-litert"} | OF_LITERT
OF_ONNXRUNTIME = {"onnxruntime", "packaging"}
MEGABYTE = 2**20


def resolve(python: str, requirement: str) -> dict[str, str]:
    """Names and versions that pip would install on a board with glibc 2.36."""
    command = [sys.executable, str(PIP), python, "36", "install", "--dry-run", "--target", "unused"]
    done = subprocess.run(
        [*command, "--ignore-installed", "-qq", "--report", "-", requirement],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = [one["metadata"] for one in json.loads(done.stdout)["install"]]
    return {
        one["name"].lower().replace("_", "-").replace(".", "-"): one["version"] for one in found
    }


@pytest.mark.parametrize(
    ("python", "extras", "expected"),
    [
        ("3.11", "[tflite]", LEAST),
        ("3.12", "[tflite]", LEAST),
        ("3.11", "", LEAST),
        ("3.12", "[onnxruntime]", LEAST | OF_ONNXRUNTIME),
    ],
)
def test_what_pip_resolves(
    wanted: None, wheel: Path, python: str, extras: str, expected: set[str]
) -> None:
    found = resolve(python, f"{wheel}{extras}")
    listed = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    print(f"\nedgeface{extras}, aarch64, Python {python}: {listed}")
    assert set(found) == expected


def test_installed_size(emulator: ModuleType, board_root: Path) -> None:
    sizes = {
        folder.name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for folder in (board_root / emulator.SITE).iterdir()
        if folder.is_dir() and not folder.name.startswith(("openvino", *OF_ONNXRUNTIME))
    }
    total = sum(sizes.values()) / MEGABYTE
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:6]
    shown = ", ".join(f"{name} {size / MEGABYTE:.0f}" for name, size in largest)
    print(f"\nedgeface[tflite] on aarch64: {total:.0f} MB installed: {shown}")
    assert {"edgeface", "numpy", "cv2", "ai_edge_litert"} <= set(sizes)
    assert total < 280
