"""Real engines of the shipped model: TensorRT-RTX parses and builds them without a GPU.

What an engine computes, only a GPU can show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeface.bundle import load_bundle, shipped_models
from edgeface.converters.half import compute_half
from edgeface.errors import BackendUnavailableError, ModelIntegrityError
from edgeface.runtimes.base import BACKENDS, INPUT, OUTPUTS, RuntimeOptions
from edgeface.runtimes.nvidia.build import build
from edgeface.runtimes.nvidia.profiles import Profile, first_profile, profile_for
from edgeface.runtimes.nvidia.progress import Progress
from edgeface.runtimes.nvidia.vendor import Vendor, find_vendor

pytest.importorskip("tensorrt_rtx", reason="needs the extra 'tensorrt-rtx'")

OPTIONS = RuntimeOptions(None, (), False, 1, "test", long_side=640)
ONE = first_profile(RuntimeOptions((640, 480), (), True, 1, "test"))
PROFILES = {
    "one size": ONE,
    "any size": first_profile(OPTIONS),
    "any batch": profile_for((8, 480, 640, 3), OPTIONS),
}


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return find_vendor("tensorrt-rtx")


def quantized(model: bytes) -> bytes:
    """The graph with explicit INT8 around every convolution; its biases stay float."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    proto = onnx.load_from_string(model)
    graph = proto.graph
    del graph.value_info[:]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    new: list[Any] = []

    def constant(name: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    constant("scale", np.float32(0.1))
    constant("zero", np.int8(0))
    for node in graph.node:
        if node.op_type == "Conv":
            source, weight = node.input[0], node.input[1]
            kernel = weights[weight]
            scales = np.abs(kernel).max(axis=(1, 2, 3)).clip(1e-6).astype(np.float32) / 127
            rounded = np.rint(kernel / scales[:, None, None, None]).astype(np.int8)
            made = [
                constant(f"{weight}_int8", rounded),
                constant(f"{weight}_scales", scales),
                constant(f"{weight}_zeros", np.zeros(len(scales), np.int8)),
            ]
            name = node.output[0]
            new += [
                helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{name}_q"]),
                helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_d"]),
                helper.make_node("DequantizeLinear", made, [f"{weight}_d"], axis=0),
            ]
            node.input[0], node.input[1] = f"{name}_d", f"{weight}_d"
        new.append(node)
    nodes = [type(node).FromString(node.SerializeToString()) for node in new]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def described(vendor: Vendor, model: bytes) -> tuple[set[str], set[str]]:
    """Types of the layers' outputs and the layers' kinds, as TensorRT-RTX parses them."""
    builder = vendor.builder()
    network = vendor.network(builder)
    parser = vendor.api.OnnxParser(network, vendor.log)
    assert parser.parse(model)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    types = {layer.get_output(0).dtype.name for layer in layers}
    return types, {layer.type.name for layer in layers}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_fp32_builds(vendor: Vendor, model: bytes, profile: Profile) -> None:
    built = build(vendor, model, profile, exact=True)
    assert len(built.engine) > 500_000
    assert built.timings == b""


@pytest.mark.parametrize("profile", [ONE, PROFILES["any batch"]], ids=["one size", "any batch"])
def test_fp16_builds(vendor: Vendor, model: bytes, profile: Profile) -> None:
    graph = compute_half(model)
    types, _ = described(vendor, graph)
    assert "HALF" in types
    assert len(build(vendor, graph, profile).engine) > 500_000


@pytest.mark.parametrize("profile", [ONE, PROFILES["any batch"]], ids=["one size", "any batch"])
def test_int8_builds(vendor: Vendor, model: bytes, profile: Profile) -> None:
    graph = quantized(model)
    types, kinds = described(vendor, graph)
    assert "INT8" in types
    assert {"QUANTIZE", "DEQUANTIZE"} <= kinds
    assert len(build(vendor, graph, profile).engine) > 100_000


def artifacts() -> list[Any]:
    """Every artifact that a TensorRT backend would load of every shipped bundle."""
    found = []
    for bundle in map(load_bundle, shipped_models()):
        for precision in ("fp32", "fp16", "int8"):
            artifact = BACKENDS["tensorrt-rtx"].artifact(bundle, (precision,))
            if artifact is not None:
                found.append(pytest.param(bundle, artifact, id=f"{bundle.name}-{precision}"))
    return found


@pytest.mark.parametrize(("bundle", "artifact"), artifacts())
def test_what_ships_builds(vendor: Vendor, bundle: Any, artifact: Any) -> None:
    data = bundle.open(artifact)
    types, kinds = described(vendor, data)
    wanted = {"fp32": set(), "fp16": {"HALF"}, "int8": {"INT8"}}[artifact.precision]
    assert wanted <= types
    assert ("QUANTIZE" in kinds) == (artifact.precision == "int8")
    assert build(vendor, data, PROFILES["any batch"]).engine


def test_building_tells_how_far_it_is(
    vendor: Vendor,
    model: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("edgeface.runtimes.nvidia.progress._LOG_SECONDS", 0.0)
    build(vendor, model, ONE, quick=True)
    lines = capsys.readouterr().err.splitlines()
    shares = [int(line.split(": ")[1].rstrip("%")) for line in lines]
    assert "edgeface builds a tensorrt-rtx engine for frames of 1x640x480: " in lines[0]
    assert 0 <= min(shares) < 50 < max(shares) <= 100


def test_a_key_press_ends_a_build(
    vendor: Vendor, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def press(self: Progress, phase: str, done: int) -> None:
        steps.append(phase)
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", press)
    with pytest.raises(KeyboardInterrupt):
        build(vendor, model, ONE)
    assert len(steps) < 30, "the library ends soon after"


def test_an_operator_that_the_parser_rejects_is_named(vendor: Vendor) -> None:
    helper = pytest.importorskip("onnx").helper
    image = helper.make_tensor_value_info(INPUT, 2, ["n", "h", "w", 3])
    output = helper.make_tensor_value_info("logit_8", 1, ["n", "a", 1])
    node = helper.make_node("Magic", [INPUT], ["logit_8"], name="trick")
    graph = helper.make_graph([node], "g", [image], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ModelIntegrityError, match=r"got 'Magic' \(node 'trick'\): .*onnxruntime"):
        build(vendor, model.SerializeToString(), ONE)


@pytest.mark.parametrize("data", [b"no model" * 50, b"cut"], ids=["text", "cut"])
def test_damaged_models_are_refused(vendor: Vendor, model: bytes, data: bytes) -> None:
    data = model[:500] if data == b"cut" else data
    with pytest.raises(
        ModelIntegrityError, match=r"model that 'tensorrt-rtx' can load, got: .*Fail"
    ):
        build(vendor, data, ONE)


def test_a_graph_that_breaks_the_contract_is_refused(vendor: Vendor, model: bytes) -> None:
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_from_string(model)
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "pixels"
    with pytest.raises(ModelIntegrityError, match="got one from pixels to logit_8"):
        build(vendor, proto.SerializeToString(), ONE)


def test_an_engine_for_a_gpu_that_is_not_here_is_an_error(vendor: Vendor, model: bytes) -> None:
    """What aiming at the present GPU says where there is none."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    with pytest.raises(
        BackendUnavailableError, match=r"to build an engine for frames of 1x640x480"
    ):
        build(vendor, model, ONE, for_this_device=True)


def test_outputs_keep_the_names_and_types_of_the_contract(vendor: Vendor, model: bytes) -> None:
    for graph in (model, compute_half(model), quantized(model)):
        builder = vendor.builder()
        network = vendor.network(builder)
        parser = vendor.api.OnnxParser(network, vendor.log)
        assert parser.parse(graph)
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        assert {one.name.split("_")[0] for one in outputs} == set(OUTPUTS)
        assert {one.dtype.name for one in outputs} == {"FLOAT"}
        assert network.get_input(0).dtype.name == "UINT8"
        del parser
