"""What a frame costs beside the network: memory that comes back, and complete timers."""

from __future__ import annotations

import time
import tracemalloc

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector

BACKENDS = ("onnxruntime", "openvino", "tflite")
PACKAGES = {"openvino": "openvino", "tflite": "ai_edge_litert"}


@pytest.fixture(params=BACKENDS)
def detector(request: pytest.FixtureRequest) -> Detector:
    if request.param in PACKAGES:
        pytest.importorskip(PACKAGES[request.param])
    return Detector(request.param, threads=1)


@pytest.mark.parametrize("size", [(320, 256), (300, 200), (900, 600)])
def test_memory_does_not_grow_from_frame_to_frame(
    detector: Detector, size: tuple[int, int], astronaut: NDArray[np.uint8]
) -> None:
    image = cv2.resize(astronaut, size)
    for _ in range(5):
        detector(image)
    tracemalloc.start()
    try:
        detector(image)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(40):
            detector(image)
        assert tracemalloc.get_traced_memory()[0] - before < 40_000  # 1 kB a frame
    finally:
        tracemalloc.stop()


def test_the_timers_add_up(detector: Detector, astronaut: NDArray[np.uint8]) -> None:
    detector(astronaut)
    shares = []
    for _ in range(5):
        started = time.perf_counter()
        detector(astronaut)
        total = (time.perf_counter() - started) * 1e3
        assert list(detector.profile) == ["read", "preprocess", "infer", "postprocess"]
        shares.append(sum(detector.profile.values()) / total)
    assert 0.8 < max(shares) <= 1
