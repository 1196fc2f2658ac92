"""The installed wheel on emulated boards: what ``auto`` takes, and the same faces as on x86."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from edgeface import Detector

pytestmark = pytest.mark.timeout(1800)

# Cortex-A76 has the dot product instructions of int8 nets, Cortex-A53 lacks them.
BOARDS = {"raspberry-pi-5": "Cortex-A76", "raspberry-pi-3": "Cortex-A53"}
KERNEL = {"Cortex-A76": "sdot", "Cortex-A53": "smlal"}
# Mask and value of each, by vector and by element.
INSTRUCTIONS = {
    "sdot": (0xFFE0FC00, 0x4E809400),
    "sdot by element": (0xFFC0F400, 0x4F80E000),
    "smlal": (0xBFE0FC00, 0x0E208000),
    "smlal by element": (0xBFC0F400, 0x0F402000),
    "fmla": (0xBFA0FC00, 0x0E20CC00),
    "fmla by element": (0xBF80F400, 0x0F801000),
}
LEAST_IOU = {"int8": 0.95, "fp32": 0.99}
LONG_SIDE = 320
FRAMES = 10
# 150 are the limit without the emulator, which tests/test_footprint.py keeps on x86.
MEGABYTES = 180
PICTURE = Path(__file__).parents[2] / "docs/astronaut.jpg"
AUTO = ("tflite", "int8")
CASES = [
    ("tflite", "int8"),
    ("tflite", "fp32"),
    ("onnxruntime", "int8"),
    ("onnxruntime", "fp32"),
    ("openvino", "int8"),
    ("openvino", "fp32"),
]


class Ran(NamedTuple):
    """What a board printed: the doctor's text, and by backend and precision what it found."""

    board: str
    doctor: str
    auto: dict[str, Any]
    cases: dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module", params=BOARDS)
def ran(request: pytest.FixtureRequest, emulator: ModuleType, board_root: Path) -> Ran:
    started = time.monotonic()
    wanted = [f"auto:auto:{FRAMES}", *(":".join(case) for case in CASES)]
    found = emulator.run(
        board_root,
        request.param,
        ["python3", "/root/detect.py", "/root/astronaut.jpg", *wanted],
    )
    assert found.returncode == 0, found.stdout + found.stderr
    doctor, brace, rest = found.stdout.partition("\n{")
    rows = [json.loads(line) for line in (brace + rest).split("\n") if line]
    print(f"\n{'=' * 20} {request.param}, {time.monotonic() - started:.0f} s\n{doctor}")
    print(rows[0]["told"])
    return Ran(request.param, doctor, rows[0], dict(zip(CASES, rows[1:], strict=True)))


def iou(one: list[float], other: list[float]) -> float:
    a, b = np.array(one), np.array(other)
    shared = np.prod(np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def test_auto_takes_litert(ran: Ran) -> None:
    assert (ran.auto["backend"], ran.auto["precision"]) == AUTO
    assert "usually the fastest on ARM CPUs" in ran.auto["told"]
    assert len(ran.auto["boxes"]) == 1


def test_memory_stays_small(ran: Ran) -> None:
    """An upper bound: the emulator and its translated code are in it."""
    print(f"{ran.auto['resident_mb']} MB resident after {FRAMES} frames, emulator included")
    assert ran.auto["resident_mb"] <= MEGABYTES


@pytest.mark.parametrize(("backend", "precision"), CASES)
def test_agrees_with_x86(ran: Ran, backend: str, precision: str) -> None:
    assert platform.machine() == "x86_64"
    row = ran.cases[backend, precision]
    assert (row["backend"], row["precision"]) == (backend, precision)
    with Detector(backend, precision=precision, input_size=LONG_SIDE) as detector:
        here = detector(cv2.imread(str(PICTURE)))
    overlaps = [iou(there, box) for there, box in zip(row["boxes"], here.boxes, strict=True)]
    print(
        f"{BOARDS[ran.board]}, {backend} {precision}: {len(overlaps)} face, "
        f"IoU with x86 {min(overlaps):.4f}, score {row['scores'][0]:.3f} and {here.scores[0]:.3f}"
    )
    assert len(overlaps) == 1
    assert min(overlaps) >= LEAST_IOU[precision]
    np.testing.assert_allclose(row["scores"], here.scores, atol=0.05)
    np.testing.assert_allclose(row["landmarks"], here.landmarks, atol=2.0)


def test_int8_runs_on_the_dot_product_where_the_core_has_it(
    ran: Ran, emulator: ModuleType, board_root: Path
) -> None:
    """What makes int8 fast: XNNPACK's kernels with SDOT, 16 products each, instead of SMLAL, 4."""
    code = (
        "import numpy; from edgeface import Detector; "
        "d = Detector('tflite', precision='int8', input_size=(64, 64), threads=1); "
        "d(numpy.zeros((64, 64, 3), numpy.uint8))"
    )
    done = emulator.run(board_root, ran.board, ["python3", "-c", code], "/root/instructions")
    assert done.returncode == 0, done.stderr
    found = Counter(
        name.split()[0]
        for word in emulator.translated(board_root / "root/instructions")
        for name, (mask, value) in INSTRUCTIONS.items()
        if word & mask == value
    )
    print(f"{BOARDS[ran.board]}, LiteRT int8: {dict(found)} in what qemu translated")
    assert found.most_common(1)[0][0] == KERNEL[BOARDS[ran.board]]


def test_doctor_describes_the_board(ran: Ran) -> None:
    lines = [" ".join(line.split()) for line in ran.doctor.splitlines()]
    machine, cores, arithmetic = lines[1:4]
    assert machine.startswith("machine Raspberry Pi")
    assert machine.endswith("Linux aarch64, no NVIDIA driver")
    assert f"x {BOARDS[ran.board]} at" in cores
    has_dot_product = "dotprod" in arithmetic.split(", no ")[0]
    assert has_dot_product == (BOARDS[ran.board] == "Cortex-A76")
    for backend in ("tflite", "onnxruntime", "openvino"):
        assert any(line.startswith(f"{backend} runs ") for line in lines), ran.doctor
    assert any(line.startswith("auto 1: tflite ") for line in lines), ran.doctor
