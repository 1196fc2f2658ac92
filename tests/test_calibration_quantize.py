"""The shipped model quantised for every target: what runs in int8, and what is refused."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgeface.calibration.onnx as calibration_onnx
from edgeface.bundle import load_bundle
from edgeface.calibration.quantize import (
    TARGETS,
    QuantizationOptions,
    quantizable_layers,
    quantize,
)
from edgeface.calibration.trial import RUNNERS, Geometry, Trial
from edgeface.converters.flatbuffer import operator_name, read_model, write_model
from edgeface.converters.half import compute_half
from edgeface.converters.parity import probe_pictures
from edgeface.errors import CalibrationError, InvalidOptionError, MissingDependencyError

onnx = pytest.importorskip("onnx", reason="needs the extra 'quantize'")
pytest.importorskip("nncf", reason="needs the extra 'quantize'")
pytest.importorskip("ai_edge_quantizer", reason="needs the extra 'quantize'")

BUNDLE = load_bundle("retinaface_mobilenet025")
KEPT = "backbone.stage2.0.0"
# Of TFLite's schema.
CUSTOM = 32


class Frames(Sequence[NDArray[np.uint8]]):
    """Four frames of two sizes."""

    def __init__(self) -> None:
        trial = Trial(source("onnx"), RUNNERS["onnx"], GEOMETRY)
        with trial:
            self._frames = [trial.place(one)[0] for one in probe_pictures() + probe_pictures(1)]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: Any) -> Any:
        return self._frames[index]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return iter(self._frames)


GEOMETRY = Geometry(BUNDLE.anchors, BUNDLE.pad_value)


def source(target: str) -> bytes:
    artifact = BUNDLE.find("tflite" if target == "tflite" else "onnx", "fp32")
    assert artifact is not None
    return BUNDLE.open(artifact)


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames()


@pytest.fixture(scope="module")
def quantised(frames: Frames) -> dict[str, bytes]:
    return {target: quantize(target, source(target), frames) for target in TARGETS}


def zero_points(content: bytes, kind: str = "QuantizeLinear") -> Counter[str]:
    model = onnx.load_from_string(content)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    found = [constants[one.input[2]] for one in model.graph.node if one.op_type == kind]
    return Counter(f"{one.dtype} {'at' if not one.any() else 'off'} 0" for one in found)


def operators(content: bytes) -> Counter[str]:
    model = read_model(content)
    return Counter(operator_name(model, one) for one in model.subgraphs[0].operators)


@pytest.mark.parametrize("target", TARGETS)
def test_it_is_smaller_and_close_at_any_size(
    target: str, quantised: dict[str, bytes], frames: Frames
) -> None:
    assert len(quantised[target]) < 0.45 * len(source(target))
    with (
        Trial(source(target), RUNNERS[target], GEOMETRY) as reference,
        Trial(quantised[target], RUNNERS[target], GEOMETRY) as candidate,
    ):
        for frame in (frames[0], frames[1], np.ascontiguousarray(frames[1][:, :96, :64])):
            expected = {name: out.copy() for name, out in reference.infer(frame).items()}
            got = candidate.infer(frame)
            assert got.keys() == expected.keys()
            for name, values in expected.items():
                assert got[name].dtype == np.float32
                assert got[name].shape == values.shape
            signal = sum(float(np.square(values).sum()) for values in expected.values())
            noise = sum(float(np.square(got[one] - expected[one]).sum()) for one in expected)
            assert 10 * np.log10(signal / noise) > 12


def test_onnxruntime_gets_asymmetric_uint8_and_its_narrow_layers_in_float(
    quantised: dict[str, bytes],
) -> None:
    assert set(zero_points(quantised["onnx"])) <= {"uint8 off 0", "uint8 at 0"}
    assert zero_points(quantised["onnx"])["uint8 off 0"] > 50
    names = quantizable_layers("onnx", source("onnx"))
    assert "backbone.stage1.0.0" not in names
    assert KEPT in names


def test_onnxruntime_gets_logits_that_are_no_steps_of_a_quantiser(
    quantised: dict[str, bytes], frames: Frames
) -> None:
    names = quantizable_layers("onnx", source("onnx"))
    assert {name for name in names if name.startswith("head.levels.0.")} == {
        "head.levels.0.boxes", "head.levels.0.landmarks",
    }  # fmt: skip
    with Trial(quantised["onnx"], RUNNERS["onnx"], GEOMETRY) as trial:
        made = trial.infer(frames[0])
        logits = np.concatenate([made[name].ravel() for name in made if name.startswith("logit")])
    assert len(np.unique(logits)) > logits.size / 2


def test_openvino_gets_no_more_quantisers_than_inputs(quantised: dict[str, bytes]) -> None:
    assert sum(zero_points(quantised["openvino"]).values()) <= len(
        quantizable_layers("openvino", source("openvino"))
    )
    assert "int32 at 0" not in zero_points(quantised["openvino"], "DequantizeLinear")


def test_tensorrt_gets_signed_symmetric_values_alone(quantised: dict[str, bytes]) -> None:
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        assert set(zero_points(quantised["tensorrt"], kind)) == {"int8 at 0"}
    assert not [one for one in quantizable_layers("tensorrt", source("tensorrt")) if "head" in one]


def test_tflite_runs_in_int8_from_end_to_end(quantised: dict[str, bytes]) -> None:
    before, after = operators(source("tflite")), operators(quantised["tflite"])
    assert after["TRANSPOSE"] == 0
    outputs = len(BUNDLE.anchors.levels) * 3
    assert after["QUANTIZE"] <= 4
    assert after["DEQUANTIZE"] <= outputs + 2
    for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "LEAKY_RELU"):
        assert after[name] == before[name]


@pytest.mark.parametrize("target", TARGETS)
def test_a_kept_layer_stays_in_float(
    target: str, quantised: dict[str, bytes], frames: Frames
) -> None:
    content = quantize(target, source(target), frames[:1], QuantizationOptions(keep_float=(KEPT,)))

    def weights(content: bytes) -> int:
        if target == "tflite":
            return operators(content)["DEQUANTIZE"]
        return zero_points(content, "DequantizeLinear").total()

    if target == "tflite":
        assert weights(content) > weights(quantised[target])
    else:
        assert weights(content) < weights(quantised[target])


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_methods_give_other_ranges(target: str, frames: Frames) -> None:
    contents = {
        quantize(target, source(target), frames[:1], QuantizationOptions(method))
        for method in ("minmax", "percentile", "entropy", "mse")
    }
    assert len(contents) == 4


def test_one_scale_per_tensor(frames: Frames) -> None:
    content = quantize("onnx", source("onnx"), frames[:1], QuantizationOptions(per_channel=False))
    model = onnx.load_from_string(content)
    scales = [one for one in model.graph.initializer if one.name.endswith("_scale")]
    assert len(scales) > 100
    assert all(int(np.prod(one.dims)) == 1 for one in scales)


def test_wrong_options_are_refused(frames: Frames) -> None:
    for target, options, message in (
        ("ncnn", QuantizationOptions(), "got 'ncnn'"),
        ("onnx", QuantizationOptions("best"), "percentile, entropy, mse for 'onnx', got 'best'"),
        ("openvino", QuantizationOptions("entropy"), "got 'entropy'"),
        ("tflite", QuantizationOptions(keep_float=("nose",)), "got nose; it has backbone"),
        ("tensorrt", QuantizationOptions(keep_float=("nose",)), "got nose; it has backbone"),
    ):
        with pytest.raises(InvalidOptionError, match=message):
            quantize(target, source(target), frames, options)
    with pytest.raises(CalibrationError, match="got none"):
        quantize("onnx", source("onnx"), [])


def test_other_graphs_are_refused(frames: Frames) -> None:
    with pytest.raises(CalibrationError, match="edgeface export"):
        quantize("onnx", b"no graph", frames)
    with pytest.raises(CalibrationError, match="edgeface export"):
        quantize("tflite", b"no graph", frames)
    model = onnx.load_from_string(source("onnx"))
    model.graph.output[0].name = "boxes"
    model.graph.node[-1].output[0] = "boxes"
    for target in ("onnx", "openvino"):
        with pytest.raises(CalibrationError):
            quantize(target, model.SerializeToString(), frames)


def test_an_unsupported_operator_is_named_with_its_layer(frames: Frames) -> None:
    model = onnx.load_from_string(source("onnx"))
    node = next(one for one in model.graph.node if f"net.{KEPT}.weight" in one.input)
    node.op_type = "GridSample3D"
    for target in ("onnx", "openvino", "tensorrt"):
        with pytest.raises(CalibrationError, match=f"'GridSample3D' in the layer '{KEPT}'"):
            quantize(target, model.SerializeToString(), frames)
    tflite = read_model(source("tflite"))
    tflite.operatorCodes[tflite.subgraphs[0].operators[5].opcodeIndex].builtinCode = CUSTOM
    with pytest.raises(CalibrationError, match="a custom one in the layer"):
        quantize("tflite", write_model(tflite), frames)


def test_a_tool_that_fails_says_so(frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> bytes:
        raise RuntimeError("no kernel for head.levels.0.boxes")

    monkeypatch.setattr(calibration_onnx, "quantize", fails)
    with pytest.raises(CalibrationError, match=r"no kernel for head\.levels\.0\.boxes"):
        quantize("onnx", source("onnx"), frames)


@pytest.mark.parametrize(
    ("target", "package"),
    [("onnx", "onnx"), ("openvino", "nncf"), ("tflite", "ai_edge_quantizer")],
)
def test_a_missing_tool_names_its_extra(
    target: str, package: str, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = source(target)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"edgeface\[quantize\]"):
        quantize(target, content, frames)


def test_float16_for_tensorrt_is_typed_throughout() -> None:
    model = onnx.load_from_string(compute_half(source("onnx")))
    single = [
        one.name
        for one in model.graph.initializer
        if one.data_type not in (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64)
    ]
    assert set(single) <= {
        name for one in model.graph.node if one.op_type == "Resize" for name in one.input
    }
    assert {one.type.tensor_type.elem_type for one in model.graph.output} == {
        onnx.TensorProto.FLOAT
    }
