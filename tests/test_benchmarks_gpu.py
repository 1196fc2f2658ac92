"""The GPU's benchmark, as far as a CPU can take it: every step of the dry run, and the roofline."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

FOLDER = Path(__file__).parents[1] / "benchmarks" / "gpu"


def run(*command: object) -> str:
    """Run a script of the folder; return what it prints."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_speed_runs_dry() -> None:
    lines = run(sys.executable, FOLDER / "speed.py", "--dry-run").splitlines()
    assert lines[0].startswith("DRY RUN")
    cells = [line.split(" | ") for line in lines if line.startswith("| retina")]
    assert [row[1:5] for row in cells] == [
        ["onnxruntime", precision, "VGA", batch]
        for precision in ("fp32", "int8")
        for batch in ("1", "2")
    ]
    assert all(float(row[5]) > 0 and float(row[7]) > 0 for row in cells)


def test_all_of_it_runs_dry(
    make_wider: Callable[..., Path], tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    script = (FOLDER / "run.sh").read_text()
    called = {name for name in ("speed.py", "accuracy.py", "doctor") if name in script}
    assert called == {"speed.py", "accuracy.py", "doctor"}
    data = make_wider(
        picture=np.ascontiguousarray(astronaut),
        faces={("0--A", "a_1"): [(170, 60, 110, 150, 1, 1, 1)]},
    )
    text = run(
        *(sys.executable, FOLDER / "accuracy.py", "--data", data, "--limit", "1", "--dry-run")
    )
    assert text.startswith("DRY RUN")
    assert text.count("| onnxruntime | fp32 | CPU | ") == 2
    assert "1 pictures, long side 640: all within 0.003 AP." in text


def test_the_script_is_sound() -> None:
    run("bash", "-n", FOLDER / "run.sh")
    if not os.access(FOLDER / "run.sh", os.R_OK):
        pytest.fail("run.sh cannot be read")


@pytest.fixture(scope="module")
def roofline() -> ModuleType:
    spec = importlib.util.spec_from_file_location("roofline", FOLDER / "roofline.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["roofline"] = module
    spec.loader.exec_module(module)
    return module


def test_the_bound_is_that_of_arithmetic_or_of_memory(roofline: ModuleType) -> None:
    chip = roofline.Chip("x", {"fp32": 1e12, "fp16": 2e12, "int8": 4e12}, 1e9)
    vga = 640 * 480

    def bound(preset: str, precision: str, pixels: int, moved: int) -> float | None:
        value: float | None = roofline.least_milliseconds(chip, preset, precision, pixels, moved)
        return value

    assert bound("retinaface_resnet18", "fp32", vga, 1) == pytest.approx(11.624)
    assert bound("retinaface_resnet18", "int8", 8 * vga, 1) == pytest.approx(11.624 * 2)
    assert bound("retinaface_resnet18", "fp32", vga, 20_000_000) == pytest.approx(20.0)
    assert bound("another", "fp32", vga, 1) is None
    assert roofline.least_milliseconds(
        roofline.Chip("new", {"fp32": 0.0}, 1e9), "retinaface_resnet18", "fp32", vga, 1
    ) is None  # fmt: skip


def test_costs_are_those_of_the_nets(roofline: ModuleType) -> None:
    pytest.importorskip("torch")
    from edgeface.nets import build
    from edgeface.nets.cost import cost

    for preset, gmac in roofline.GMAC.items():
        assert cost(build(preset)).gmac == pytest.approx(gmac, abs=0.001)
