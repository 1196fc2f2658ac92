from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "backends.py"


@pytest.fixture(scope="module")
def backends() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_backends", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["yunet_n", "yunet_s"])
def test_yunet_is_decoded_as_opencv_decodes_it(
    backends: ModuleType, data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer is given its due: the same faces as in OpenCV, to a hundredth of a pixel."""
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    image = backends.load_picture(None)
    size = (backends.WIDTH, backends.HEIGHT)
    peer = cv2.FaceDetectorYN.create(str(data / "peers" / f"{name}_640_640.onnx"), "", size, 0.5)
    [wanted] = peer.detect(image)[1]
    session = onnxruntime.InferenceSession(data / "peers" / f"{name}_dynamic.onnx")
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"input": cv2.dnn.blobFromImage(image)})
    boxes, scores, points = backends.decode_yunet(dict(zip(names, outputs, strict=True)), size[0])
    best = scores.argmax()
    found = np.concatenate([boxes[best], points[best].ravel(), scores[best : best + 1]])
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_rounds_are_interleaved(backends: ModuleType) -> None:
    calls: list[str] = []

    def detect(name: str) -> int:
        calls.append(name)
        return 0

    detectors = {name: lambda image, name=name: detect(name) for name in ("one", "other")}
    times = backends.measure(detectors, np.zeros((480, 640, 3), np.uint8), rounds=3)
    assert calls == ["one", "other"] * (backends.WARM_UP + 3)
    assert {name: len(values) for name, values in times.items()} == {"one": 3, "other": 3}


def test_the_table_gives_ratios_to_the_baseline(backends: ModuleType) -> None:
    row = {"load": 0.1, "first": 0.2, "median": 10.0, "p90": 11.0, "faces": 1}
    rows = {"ours": row, backends.BASELINE: {**row, "median": 20.0}}
    assert "| ours | 0.10 | 0.20 | 10.0 | 11.0 | 0.50 | 1 |" in backends.table(rows)
    assert "| 10.0 | 11.0 | – | 1 |" in backends.table({"ours": row})
