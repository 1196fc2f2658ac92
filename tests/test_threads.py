"""Worker threads: how many by default, and that they cost nothing while there is nothing to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

BACKENDS = ("openvino", "onnxruntime", "tflite")

COST = """
import json, sys, time
import numpy as np
from edgeface import Detector

backend, mode = sys.argv[1:]
image = np.full((240, 320, 3), 128, np.uint8)
spent = []
for threads in (1, 2):
    with Detector(backend, threads=threads, mode=mode, precision="fp32") as detector:
        for _ in range(3):
            detector(image)
        began = time.process_time()
        for _ in range(20):
            detector(image)
            time.sleep(0.03)
        spent.append(time.process_time() - began)
        began = time.process_time()
        time.sleep(1)
        idle = time.process_time() - began
print(json.dumps({"idle": idle, "spent": spent}))
"""

DEFAULT = """
import json, os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from edgeface import Detector

found = {}
for mode in ("latency", "throughput"):
    with Detector("onnxruntime", mode=mode) as detector:
        found[mode] = [detector.explain().threads, detector.explain().facts["threads"]]
print(json.dumps(found))
"""


def run(code: str, *arguments: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_do_not_spin_between_frames_nor_after_the_last(backend: str, mode: str) -> None:
    """With ONNX Runtime's spinning left on, two threads burn four times what one does."""
    told = run(COST, backend, mode)
    one, two = told["spent"]
    assert two < 2.5 * one
    assert told["idle"] < 0.1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_bound_to_one_core_computes_with_one_thread() -> None:
    assert run(DEFAULT) == {"latency": [1, "1"], "throughput": [1, "1"]}
