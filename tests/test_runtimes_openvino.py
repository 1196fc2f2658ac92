"""OpenVINO's runtime: what it does to a graph, and what it spares a process that starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.bundle import load_bundle
from edgeface.runtimes import openvino
from edgeface.runtimes.base import Outputs, RuntimeOptions
from edgeface.runtimes.openvino_graph import is_int8, take_camera_bytes

vendor = pytest.importorskip("openvino")

SHAPE = (1, 96, 160, 3)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def artifact(precision: str, format: str = "onnx") -> bytes:
    bundle = load_bundle("retinaface_mobilenet025")
    found = bundle.find(format, precision)
    assert found is not None
    return bundle.open(found)


def run(data: bytes, frames: NDArray[np.uint8], *, rewritten: bool) -> Outputs:
    model = vendor.Core().read_model(data)
    model.reshape(list(frames.shape))
    if rewritten:
        take_camera_bytes(vendor, model)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    graph = vendor.Core().compile_model(model, "CPU", exact)
    values = graph([frames]).values()
    return {port.any_name: value for port, value in zip(graph.outputs, values, strict=True)}


def frame(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(cv2.resize(astronaut, (SHAPE[2], SHAPE[1]))[None])


def passes_over_the_picture(data: bytes, shape: tuple[int, ...], *, rewritten: bool) -> int:
    """What the plug-in runs before the first convolution."""
    model = vendor.Core().read_model(data)
    model.reshape(list(shape))
    if rewritten:
        take_camera_bytes(vendor, model)
    request = vendor.Core().compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    request.infer([np.zeros(shape, np.uint8)])
    ran = [
        step.node_type
        for step in request.get_profiling_info()
        if step.status == vendor.ProfilingInfo.Status.EXECUTED
    ]
    return ran.index("Convolution")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_float_graph_computes_the_same_to_the_bit(
    astronaut: NDArray[np.uint8], batch: int
) -> None:
    frames = np.repeat(frame(astronaut), batch, 0)
    data = artifact("fp32")
    plain, rewritten = (run(data, frames, rewritten=choice) for choice in (False, True))
    for name, value in plain.items():
        np.testing.assert_array_equal(rewritten[name], value, err_msg=name)


def test_an_int8_graph_comes_no_less_close_to_float(astronaut: NDArray[np.uint8]) -> None:
    frames = frame(astronaut)
    exact = run(artifact("fp32"), frames, rewritten=False)
    data = artifact("int8", "openvino")
    errors = []
    for choice in (False, True):
        outputs = run(data, frames, rewritten=choice)
        errors.append([float(np.abs(outputs[name] - exact[name]).mean()) for name in exact])
    stored, rewritten = np.array(errors)
    assert (stored > 0).all()
    assert (stored != rewritten).any()
    assert (rewritten / stored).mean() < 1.15


@pytest.mark.skipif(not openvino.host().is_x86, reason="rewritten for x86 only")
@pytest.mark.parametrize(("format", "precision"), [("openvino", "int8"), ("onnx", "fp32")])
def test_fewer_passes_over_the_picture(format: str, precision: str) -> None:
    data = artifact(precision, format)
    rewritten, plain = (
        passes_over_the_picture(data, SHAPE, rewritten=choice) for choice in (True, False)
    )
    assert rewritten < plain


def quantised(ops: Any, picture: Any, scale: float = 1) -> Any:
    """A picture rounded to 8 bits and back, as ONNX's pair of quantisers comes out here."""
    low, high, least, most = (ops.constant(np.float32(value)) for value in (0, 255, 0, 255))
    rounded = ops.fake_quantize(ops.convert(picture, "f32"), low, high, least, most, 256)
    codes = ops.convert(ops.convert(rounded, "u8"), "f32")
    return ops.multiply(ops.subtract(codes, np.float32(0)), np.float32(scale))


def test_knows_an_int8_graph() -> None:
    kinds = {("openvino", "int8"): True, ("onnx", "int8"): False, ("onnx", "fp32"): False}
    for (format, precision), wanted in kinds.items():
        assert is_int8(vendor.Core().read_model(artifact(precision, format))) == wanted
    options = RuntimeOptions(None, (), exact=False, threads=1, cache_key="int8")
    for _ in range(2):
        runtime = openvino.load(artifact("int8", "openvino"), options)
        assert runtime.describe()["precision"] == "int8"


def test_the_grey_outside_is_all_that_an_int8_graph_notices(astronaut: NDArray[np.uint8]) -> None:
    """Inside, the bias makes up for the mean: a graph of one convolution tells the difference."""
    ops = vendor.opset13
    mean = np.array([104, 117, 123], np.float32).reshape(1, 3, 1, 1)
    picture = ops.parameter([1, 96, 160, 3], np.uint8, name="image")
    centred = ops.subtract(ops.transpose(quantised(ops, picture), [0, 3, 1, 2]), mean)
    codes = np.random.default_rng(0).integers(-127, 128, (8, 3, 3, 3), np.int8)
    weights = ops.multiply(ops.convert(ops.constant(codes), "f32"), np.float32(0.01))
    found = ops.convolution(centred, weights, [2, 2], [1, 1], [1, 1], [1, 1])
    model = vendor.Model([found], [picture])
    frames = frame(astronaut)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    plain = vendor.Core().compile_model(model.clone(), "CPU", exact)([frames])[0]
    take_camera_bytes(vendor, model)
    assert "Add" in [node.get_type_name() for node in model.get_ops()]
    rewritten = vendor.Core().compile_model(model, "CPU", exact)([frames])[0]
    np.testing.assert_allclose(rewritten[..., 1:, 1:], plain[..., 1:, 1:], atol=2e-3)
    assert np.abs(rewritten - plain).max() <= 11 * 5 * 3 * 1.27


@pytest.mark.parametrize("change", ["order", "mean", "scale", "use"])
def test_another_beginning_stays_as_it_is(change: str) -> None:
    ops = vendor.opset13
    picture = ops.parameter([1, 32, 32, 3], np.uint8, name="image")
    order = [0, 3, 2, 1] if change == "order" else [0, 3, 1, 2]
    mean = np.full((1, 1, 1, 1) if change == "mean" else (1, 3, 1, 1), 9, np.float32)
    values = quantised(ops, picture, scale=2 if change == "scale" else 1)
    centred = ops.subtract(ops.transpose(values, order), mean)
    weights = np.ones((4, 3, 3, 3), np.float32)
    found = ops.convolution(centred, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    results = [found, centred] if change == "use" else [found]
    model = vendor.Model(results, [picture])
    before = [node.friendly_name for node in model.get_ordered_ops()]
    take_camera_bytes(vendor, model)
    assert [node.friendly_name for node in model.get_ordered_ops()] == before


def test_a_known_model_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data = artifact("fp32")
    options = RuntimeOptions(None, (), exact=True, threads=1, cache_key="known")
    frames = np.zeros(SHAPE, np.uint8)
    first = openvino.load(data, options).infer(frames)

    def refuse(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(vendor.Core, "read_model", refuse)
    again = openvino.load(data, options).infer(frames)
    assert list(again) == list(first)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)


CONVERTER = """
import sys
from edgeface.runtimes import openvino
vendor = openvino._import()
assert not any(name.startswith("openvino.tools.ovc") for name in sys.modules), "imported"
print([port.any_name for port in vendor.convert_model(sys.argv[1]).inputs])
"""


def test_the_converter_is_there_for_others(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(artifact("fp32"))
    command = [sys.executable, "-c", CONVERTER, str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['image']"
