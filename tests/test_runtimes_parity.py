"""The shipped model computes the same on every backend, on a picture that export never saw."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.bundle import load_bundle
from edgeface.runtimes.base import BACKENDS, Outputs, Runtime, RuntimeOptions, load

MODEL = "retinaface_mobilenet025"
SIZES = ((640, 480), (320, 416), (96, 160), (512, 512), (1024, 32))
EXACT_TOLERANCE = 1e-3
REDUCED_SNR_DB = 20.0


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@cache
def shipped(name: str, exact: bool = True) -> Runtime:
    bundle = load_bundle(MODEL)
    artifact = bundle.best(BACKENDS[name].formats, ("fp32",))
    assert artifact is not None
    options = RuntimeOptions(
        input_size=None,
        input_sizes=artifact.input_sizes,
        exact=exact,
        threads=1,
        cache_key=artifact.sha256,
    )
    return load(name, bundle.open(artifact), options)


def frame(astronaut: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(cv2.resize(astronaut, size)[None])


def reference(frames: NDArray[np.uint8]) -> Outputs:
    return shipped("onnxruntime").infer(frames)


@pytest.mark.parametrize("size", SIZES)
def test_the_outputs_obey_the_graph_contract(
    astronaut: NDArray[np.uint8], size: tuple[int, int]
) -> None:
    outputs = reference(frame(astronaut, size))
    shapes = {}
    for level in load_bundle(MODEL).anchors.levels:
        rows, columns = level.grid(size[1], size[0])
        for kind, values in {"logit": 1, "delta": 4, "landmark": 10}.items():
            shapes[f"{kind}_{level.stride}"] = (1, rows * columns * level.per_cell, values)
    assert {name: value.shape for name, value in outputs.items()} == shapes
    assert {value.dtype for value in outputs.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["openvino", "tflite"])
@pytest.mark.parametrize("size", SIZES)
def test_exact_backends_agree(
    astronaut: NDArray[np.uint8], size: tuple[int, int], name: str
) -> None:
    frames = frame(astronaut, size)
    wanted, outputs = reference(frames), shipped(name).infer(frames)
    assert set(outputs) == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(outputs[key], value, rtol=0, atol=EXACT_TOLERANCE, err_msg=key)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tflite"])
def test_a_batch_equals_its_frames(astronaut: NDArray[np.uint8], name: str) -> None:
    frames = frame(astronaut, (160, 128))
    both = np.concatenate([frames, frames[:, ::-1]])
    outputs = shipped(name).infer(both)
    for index in range(2):
        one = reference(np.ascontiguousarray(both[index : index + 1]))
        for key, value in one.items():
            np.testing.assert_allclose(
                outputs[key][index], value[0], rtol=0, atol=EXACT_TOLERANCE, err_msg=key
            )


def test_reduced_precision_stays_close(astronaut: NDArray[np.uint8]) -> None:
    frames = frame(astronaut, (640, 480))
    wanted, outputs = reference(frames), shipped("openvino", exact=False).infer(frames)
    for key, value in wanted.items():
        noise = np.square(outputs[key] - value).sum() + 1e-12
        assert 10 * np.log10(np.square(value).sum() / noise) >= REDUCED_SNR_DB, key
