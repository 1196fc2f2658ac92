"""Graphs of a fixed input size and batch, from the command to the detector."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.bundle import Bundle, load_bundle
from edgeface.cli.main import main
from edgeface.errors import InvalidImageError, InvalidOptionError
from edgeface.runtimes.base import BACKENDS, RuntimeOptions, load
from edgeface.runtimes.fixedbatch import FixedBatch
from edgeface.runtimes.nvidia.build import build as build_engine
from edgeface.runtimes.nvidia.profiles import first_profile
from edgeface.runtimes.nvidia.vendor import find_vendor

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

MODEL = "retinaface_mobilenet025"
SIZE, BATCH = (320, 256), 2
OUTPUT = "logit_8"


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped model as an ONNX graph for two frames of 320 x 256."""
    output = tmp_path_factory.mktemp("static") / "model"
    command = ["export", "--model", MODEL, "--target", "onnx,openvino,tensorrt"]
    command += ["--input-size", "320x256", "--batch", str(BATCH), "-o", str(output)]
    assert main(command) == 0
    return load_bundle(output)


def options(bundle: Bundle) -> RuntimeOptions:
    [artifact] = [one for one in bundle.artifacts if one.format == "onnx"]
    assert (artifact.input_sizes, artifact.batch) == ((SIZE,), BATCH)
    return RuntimeOptions(
        None, artifact.input_sizes, exact=True, threads=1, cache_key="", batch=artifact.batch
    )


def content(bundle: Bundle) -> bytes:
    artifact = bundle.find("onnx", "fp32")
    assert artifact is not None
    return bundle.open(artifact)


def test_the_graph_has_no_open_dimension(static: Bundle) -> None:
    graph = onnx.load_from_string(content(static)).graph
    onnx.checker.check_model(onnx.load_from_string(content(static)), full_check=True)
    for value in (*graph.input, *graph.output):
        assert all(side.dim_value > 0 for side in value.type.tensor_type.shape.dim), value.name
    shape = [side.dim_value for side in graph.input[0].type.tensor_type.shape.dim]
    assert shape == [BATCH, SIZE[1], SIZE[0], 3]
    assert "Shape" not in {node.op_type for node in graph.node}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_detector_finds_what_the_dynamic_graph_finds(
    backend: str, static: Bundle, astronaut: NDArray[np.uint8]
) -> None:
    pytest.importorskip(BACKENDS[backend].packages[0])
    with Detector(backend, precision="fp32", input_size=SIZE) as detector:
        expected = detector(astronaut)
    for input_size in (640, SIZE):
        made = Detector(backend, model=static.path, precision="fp32", input_size=input_size)
        with made as detector:
            faces = detector(astronaut)
        assert len(faces) == len(expected) > 0
        np.testing.assert_allclose(faces.boxes, expected.boxes, atol=1e-2)
        np.testing.assert_allclose(faces.landmarks, expected.landmarks, atol=1e-2)


def test_other_sizes_are_refused(static: Bundle) -> None:
    with pytest.raises(InvalidOptionError, match="320x256 only"):
        Detector("onnxruntime", model=static.path, input_size=(640, 480))
    runtime = load("onnxruntime", content(static), options(static))
    with pytest.raises(InvalidImageError, match="expected frames of 320x256, got 64x32"):
        runtime.infer(np.zeros((BATCH, 32, 64, 3), np.uint8))
    with pytest.raises(InvalidImageError, match="contiguous uint8 frames"):
        runtime.infer(np.zeros((0, SIZE[1], SIZE[0], 3), np.uint8))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_any_number_of_frames_goes_through_a_fixed_batch(backend: str, static: Bundle) -> None:
    pytest.importorskip(BACKENDS[backend].packages[0])
    frames = np.random.default_rng(0).integers(0, 256, (5, SIZE[1], SIZE[0], 3), np.uint8)
    runtime = load(backend, content(static), options(static))
    assert isinstance(runtime, FixedBatch)
    assert runtime.describe()["batch"] == str(BATCH)
    alone = [runtime.infer(frames[number : number + 1])[OUTPUT].copy() for number in range(5)]
    assert not np.allclose(alone[0], alone[1])
    for count in (1, 2, 3, 5):
        got = runtime.infer(frames[:count])[OUTPUT]
        assert got.shape == (count, *alone[0].shape[1:])
        np.testing.assert_allclose(got, np.concatenate(alone[:count]), atol=1e-4)
    runtime.close()


def test_tensorrt_builds_an_engine_of_the_fixed_frames(static: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra 'tensorrt-rtx'")
    profile = first_profile(options(static))
    assert profile.smallest == profile.largest == (BATCH, SIZE[1], SIZE[0], 3)
    vendor = find_vendor("tensorrt-rtx")
    assert build_engine(vendor, content(static), profile, quick=True).engine
