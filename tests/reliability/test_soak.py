"""Three minutes of every backend at once; an hour of each is the script's default."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"
BACKENDS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tflite": "ai_edge_litert"}
MINUTES = 3

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.slow
def test_nothing_grows() -> None:
    installed = [name for name, package in BACKENDS.items() if importlib.util.find_spec(package)]
    command = [sys.executable, str(SCRIPT), "--minutes", str(MINUTES), "--fps", "8", "--backend"]
    runs = {
        name: subprocess.Popen(
            [*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in installed
    }
    for name, run in runs.items():
        output, errors = run.communicate(timeout=MINUTES * 60 + 120)
        assert "| broken bounds |" in output, f"{name}: {errors}"
        verdict = output.rsplit("| broken bounds | ", 1)[1].rstrip(" |\n")
        broken = [bound for bound in verdict.split("; ") if not bound.startswith(("none", "p99"))]
        assert not broken, f"{name}: {output}"


def test_a_run_that_grows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import numpy as np
    from soak import Run

    from edgeface.bench.process import Sample

    def run(growth: float, threads: int, late: float, step: float = 0) -> list[str]:
        seconds = np.linspace(0, 3600, 120)
        sizes = 100 + growth * seconds / 3600 + step * (seconds > 3000)
        samples = [
            Sample(s, size, 3 + (s > 3000) * threads, 6)
            for s, size in zip(seconds, sizes, strict=True)
        ]
        cost = np.tile(np.linspace(0.9, 1.1, 100), 30)
        cost[2000:] *= late
        return Run(samples, cost, 1).broken()

    assert run(0.5, 0, 1.0) == []
    assert run(0.5, 0, 1.0, step=2.0) == []
    assert run(2.0, 0, 1.0) == ["RSS grows by at most 1.0 MiB/h"]
    assert run(0.0, 1, 1.0) == ["the number of threads is constant"]
    assert run(0.0, 0, 1.2) == ["p99 drifts by at most 10%"]
