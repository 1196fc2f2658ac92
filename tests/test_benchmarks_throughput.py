"""benchmarks/throughput.py measures what its tables say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "throughput.py"


def test_it_prints_both_tables() -> None:
    options = ["--backends", "onnxruntime", "--precisions", "int8", "--threads=2", "--rounds=1"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| onnx")]
    batches, callers = rows[:2], rows[2:]
    assert [[cell.strip() for cell in row[:3]] for row in batches] == [
        ["onnxruntime", "int8", "1"],
        ["onnxruntime", "int8", "2"],
    ]
    assert all(float(row[3]) > 0 and len(row) == 8 for row in batches)
    assert len(callers) == 9
    assert callers[0][3].strip().startswith("1.00 (1.00–1.00)")
    assert all(float(row[2]) > 0 and float(row[4]) > 0 for row in callers)
