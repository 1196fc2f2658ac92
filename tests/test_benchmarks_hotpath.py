"""benchmarks/hotpath.py measures what its tables say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "hotpath.py"


def test_it_prints_its_tables() -> None:
    for package in ("openvino", "onnx"):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, SCRIPT, "--rounds", "1"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in done.stdout.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    shares = {row[0]: float(row[2].rstrip("%")) for row in rows[1:6]}
    assert list(shares) == ["backbone", "neck", "context", "head", "the rest"]
    assert 97 <= sum(shares.values()) <= 103
    assert max(shares, key=lambda name: shares[name]) != "the rest"
    firsts = [row for row in rows if row[0] in ("as stored", "three levels", "as exported")]
    assert [row[2] for row in firsts] == ["1.00"] * 7
    found = {row[0]: int(row[2]) for row in rows if len(row) == 6 and row[0].isdigit()}
    assert found["0"] == 0
    assert found["1"] == 1
    assert 400 < found["500"] <= 600
