"""When an export fails its parity, the report names the layer where it begins to differ."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeface.bundle import load_bundle
from edgeface.converters import parity
from edgeface.converters.divergence import Divergence, first_diverging, snr_db
from edgeface.converters.layers import onnx_layers, openvino_layers, tflite_layers, torch_layers
from edgeface.converters.parity import check_parity, torch_outputs
from edgeface.errors import ConversionError
from edgeface.faces import Faces
from edgeface.nets.weights import load_weights, read_bundle_weights
from edgeface.preprocess import Letterbox

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

FRAME = np.random.default_rng(1).integers(0, 256, (1, 96, 128, 3), np.uint8)
PICTURES = list(FRAME)
LAYERS = ("backbone.stage1.3.0", "head.levels.2.boxes")


@pytest.fixture(scope="module")
def net() -> DetectorNet:
    bundle = load_bundle("retinaface_mobilenet025")
    return load_weights(bundle.preset, read_bundle_weights(bundle))


def shipped(format: str) -> bytes:
    bundle = load_bundle("retinaface_mobilenet025")
    artifact = bundle.find(format, "fp32")
    assert artifact is not None
    return bundle.open(artifact)


def corrupt_onnx(content: bytes, layer: str) -> bytes:
    """Scale the weights of one layer."""
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.name == f"net.{layer}.weight":
            weights = onnx.numpy_helper.to_array(tensor) * np.float32(1.01)
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
            return bytes(model.SerializeToString())
    raise AssertionError(f"no weights of {layer}")


def corrupt_tflite(content: bytes, position: int) -> bytes:
    """Scale the weights of the convolution at that position."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    codes = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    convolutions = [
        operator
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode in codes
    ]
    buffer = model.buffers[graph.tensors[convolutions[position].inputs[1]].buffer]
    weights = np.asarray(buffer.data, np.uint8).view(np.float32) * np.float32(1.01)
    buffer.data = weights.view(np.uint8)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_every_layer_of_every_format_is_torchs(net: DetectorNet) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("ai_edge_litert")
    expected = torch_layers(net, FRAME)
    assert set(LAYERS) <= set(expected)
    assert len(expected) == sum(isinstance(one, torch.nn.Conv2d) for one in net.modules())
    tflite, clipped = tflite_layers(shipped("tflite"), FRAME, list(expected))
    assert {name.split(".")[2] for name in clipped} <= {"branch3", "branch5", "branch7"}
    rectified = {
        name: np.maximum(maps, 0) if name in clipped else maps for name, maps in expected.items()
    }
    files = (
        (expected, onnx_layers(shipped("onnx"), FRAME)),
        (expected, openvino_layers(shipped("onnx"), FRAME)),
        (rectified, tflite),
    )
    for wanted, got in files:
        assert set(got) == set(wanted)
        assert first_diverging(wanted, got, 80) is None


def test_torch_layers_end_in_the_graphs_outputs(net: DetectorNet) -> None:
    layers = torch_layers(net, FRAME)
    [outputs] = torch_outputs(net, [FRAME])
    maps = layers["head.levels.1.boxes"]
    np.testing.assert_allclose(maps.transpose(0, 2, 3, 1).reshape(1, -1, 4), outputs["delta_16"])


@pytest.mark.parametrize("layer", LAYERS)
def test_a_corrupted_onnx_file_is_reported_with_its_layer(net: DetectorNet, layer: str) -> None:
    report = check_parity(net, {"onnx": corrupt_onnx(shipped("onnx"), layer)}, pictures=PICTURES)
    assert not report.passed
    for one in report.backends:
        assert one.divergence is not None
        assert one.divergence.layer == layer
        assert f"First layer that differs on {one.backend}, fp32: {layer} (" in report.to_markdown()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_corrupted_tflite_file_is_reported_with_its_layer(net: DetectorNet, layer: str) -> None:
    pytest.importorskip("ai_edge_litert")
    position = list(torch_layers(net, FRAME)).index(layer)
    content = corrupt_tflite(shipped("tflite"), position)
    report = check_parity(net, {"tflite": content}, pictures=PICTURES)
    assert [one.divergence and one.divergence.layer for one in report.backends] == [layer]


def test_a_module_on_several_levels_is_told_apart_by_the_size_of_its_map(net: DetectorNet) -> None:
    shared = copy.deepcopy(net)
    shared.context[1] = shared.context[0]
    layers = torch_layers(shared, FRAME)
    assert {"context.0.reduce.0 (16x12)", "context.0.reduce.0 (8x6)"} <= set(layers)


def test_a_file_with_other_layers_is_still_reported(net: DetectorNet) -> None:
    model = onnx.load_from_string(corrupt_onnx(shipped("onnx"), LAYERS[0]))
    for tensor in model.graph.initializer:
        for node in model.graph.node:
            node.input[:] = [f"w_{name}" if name == tensor.name else name for name in node.input]
        tensor.name = f"w_{tensor.name}"
    with pytest.warns(UserWarning, match="expected layer 'backbone.stage1.0.0'.*got no such layer"):
        report = check_parity(net, {"onnx": model.SerializeToString()}, pictures=PICTURES)
    assert not report.passed
    assert all(one.divergence is None for one in report.backends)


def test_int8_is_held_to_its_own_bound(net: DetectorNet) -> None:
    content = corrupt_onnx(shipped("onnx"), LAYERS[0])
    assert check_parity(net, {"onnx": content}, precision="int8", pictures=PICTURES).passed
    assert not check_parity(net, {"onnx": content}, precision="fp16", pictures=PICTURES).passed


def test_faces_of_one_box_are_compared_by_their_landmarks(
    net: DetectorNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = np.array([[0, 0, 64, 32]] * 2, np.float32)
    points = np.stack([np.full((5, 2), value, np.float32) for value in (8, 20)])
    scores = np.array([0.9, 0.8], np.float32)
    faces = {"torch": Faces(boxes, scores, points), "file": Faces(boxes, scores, points[::-1] + 1)}
    monkeypatch.setattr(parity, "_faces", lambda outputs, *_: faces[next(iter(outputs))])
    monkeypatch.setattr(parity, "_clear_threshold", lambda outputs: 0.5)
    place = Letterbox(1.0, 1.0, 64, 32, 64, 32)
    nothing = np.zeros(0, np.float32)
    found = parity.compare_faces(net.anchors, [{"torch": nothing}], [{"file": nothing}], [place])
    assert (found.expected, found.matched, found.extra) == (2, 2, 0)
    assert found.landmark_px == pytest.approx(np.sqrt(2))


def test_scores_that_overflow_are_a_threshold_all_the_same() -> None:
    logits = -np.linspace(1e4, 2e4, 100, dtype=np.float32)
    assert 0 < parity._clear_threshold({"logit_8": logits}) < 1e-300


def test_snr_of_a_known_error() -> None:
    signal: Any = np.full(4, 10, np.float32)
    assert snr_db(signal, signal + np.float32([0, 0, 0, 2])) == pytest.approx(20)
    assert snr_db(signal, signal) == np.inf
    assert snr_db(np.zeros(4), signal) < -300


def test_first_diverging_takes_torchs_order_and_refuses_other_shapes() -> None:
    ones = np.ones((1, 1, 2, 2), np.float32)
    expected = {"first": ones, "second": ones, "third": ones}
    got = {"third": ones * 2, "second": ones * 3, "first": ones}
    assert first_diverging(expected, got, 20) == Divergence("second", snr_db(ones, ones * 3))
    assert first_diverging(expected, expected, 20) is None
    broken = {**expected, "first": ones * np.float32(np.nan)}
    assert first_diverging(expected, broken, 20) is not None
    with pytest.raises(ConversionError, match=r"'first' of shape \(1, 1, 2, 2\), got no such"):
        first_diverging(expected, {}, 20)
