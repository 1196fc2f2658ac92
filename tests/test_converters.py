"""Exported graphs: their contract, their cleanliness, and that they compute what torch computes."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeface.bundle import load_bundle
from edgeface.converters.onnx import to_onnx
from edgeface.converters.parity import (
    check_parity,
    compare_faces,
    compare_tensors,
    probe_pictures,
    torch_outputs,
)
from edgeface.converters.tflite import to_tflite
from edgeface.errors import ConversionError, InvalidOptionError, MissingDependencyError
from edgeface.nets.weights import load_bundle_net
from edgeface.preprocess import Letterbox
from edgeface.runtimes.base import BACKENDS, RuntimeOptions, load

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

NAMES = [f"{kind}_{stride}" for stride in (8, 16, 32) for kind in ("logit", "delta", "landmark")]
UNSEEN = [(480, 640), (96, 352), (32, 32)]


def make_net() -> DetectorNet:
    """A small net with every part of ours, whose outputs vary as much as a trained one's."""
    from edgeface.nets.backbones import Stage
    from edgeface.nets.backbones.mobilenet import depthwise_separable
    from edgeface.nets.context import PerLevel
    from edgeface.nets.context.ssh import ContextModule
    from edgeface.nets.detector import DetectorNet
    from edgeface.nets.heads.anchor import AnchorHead
    from edgeface.nets.layers import conv_bn
    from edgeface.nets.necks.fpn import FeaturePyramid
    from edgeface.nets.presets.retinaface import LIGHT_ANCHORS

    class Backbone(torch.nn.Module):
        stages = (Stage(16, 8), Stage(24, 16), Stage(32, 32))

        def __init__(self) -> None:
            super().__init__()
            self.stem = conv_bn(3, 8, stride=4, activation=torch.nn.LeakyReLU(0.1))
            widths = (8, 16, 24, 32)
            self.layers = torch.nn.ModuleList(
                depthwise_separable(*pair, stride=2) for pair in itertools.pairwise(widths)
            )

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            maps = [self.stem(images)]
            for layer in self.layers:
                maps.append(layer(maps[-1]))
            return maps[1:]

    torch.manual_seed(0)
    width, levels = 16, LIGHT_ANCHORS.levels
    context = PerLevel(ContextModule(width, 0.1) for _ in levels)
    neck, head = FeaturePyramid(Backbone.stages, width, 0.1), AnchorHead(width, levels)
    net = DetectorNet(Backbone(), neck, context, head, LIGHT_ANCHORS)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    net.backbone.stem[1].running_var.fill_(60.0**2)
    return net.eval()


@pytest.fixture(scope="module")
def net() -> DetectorNet:
    return make_net()


@pytest.fixture(scope="module")
def onnx_file(net: DetectorNet) -> bytes:
    return to_onnx(net)


@pytest.fixture(scope="module")
def tflite_file(net: DetectorNet) -> bytes:
    pytest.importorskip("litert_torch")
    return to_tflite(net)


def frame(height: int, width: int, count: int = 1) -> Any:
    return np.random.default_rng(height).integers(0, 256, (count, height, width, 3), np.uint8)


def open_runtime(name: str, data: bytes, sizes: tuple[tuple[int, int], ...] = ()) -> Any:
    key = hashlib.sha256(data).hexdigest()
    return load(name, data, RuntimeOptions(None, sizes, exact=True, threads=1, cache_key=key))


def test_onnx_keeps_the_graph_contract(onnx_file: bytes) -> None:
    model = onnx.load_from_string(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    [image] = model.graph.input
    dims = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert (image.name, image.type.tensor_type.elem_type) == ("image", onnx.TensorProto.UINT8)
    assert dims == ["batch", "height", "width", 3]
    assert [output.name for output in model.graph.output] == NAMES


def test_onnx_graph_is_clean(onnx_file: bytes) -> None:
    model = onnx.load_from_string(onnx_file)
    kinds = [node.op_type for node in model.graph.node]
    assert set(kinds) == {
        *("Cast", "Sub", "Conv", "LeakyRelu", "Relu", "Add", "Concat", "Resize"),
        *("Transpose", "Reshape"),
    }
    assert kinds.count("Transpose") == 1 + len(NAMES)
    assert kinds.count("Reshape") == len(NAMES)
    assert all(tensor.data_location == tensor.DEFAULT for tensor in model.graph.initializer)


def test_onnx_file_tells_nothing_of_the_machine_that_made_it(onnx_file: bytes) -> None:
    assert os.fsencode(Path(torch.__file__).parent) not in onnx_file
    assert b"forward" not in onnx_file
    assert not onnx.load_from_string(onnx_file).metadata_props


def test_onnx_runs_a_batch_as_its_frames(onnx_file: bytes) -> None:
    runtime = open_runtime("onnxruntime", onnx_file)
    frames = frame(64, 96, count=3)
    together = {name: value.copy() for name, value in runtime.infer(frames).items()}
    for index in range(3):
        alone = runtime.infer(frames[index : index + 1])
        for name in NAMES:
            np.testing.assert_allclose(together[name][index], alone[name][0], atol=1e-4)


def test_tflite_keeps_the_graph_contract_at_any_size(tflite_file: bytes) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=tflite_file, num_threads=1)
    kinds = [operator["op_name"] for operator in interpreter._get_ops_details()]
    assert not {"TRANSPOSE", "RESIZE_NEAREST_NEIGHBOR", "SHAPE", "BATCH_NORM"} & set(kinds)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": sorted(NAMES)}
    }
    [image] = interpreter.get_input_details()
    assert image["dtype"] == np.uint8
    assert image["shape_signature"].tolist() == [1, -1, -1, 3]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "tflite"])
def test_backends_equal_torch_on_unseen_sizes(
    backend: str, net: DetectorNet, request: pytest.FixtureRequest
) -> None:
    packages = {"openvino": "openvino", "tflite": "ai_edge_litert"}
    pytest.importorskip(packages.get(backend, "onnxruntime"))
    file = request.getfixturevalue("tflite_file" if backend == "tflite" else "onnx_file")
    runtime = open_runtime(backend, file)
    for height, width in [*UNSEEN, UNSEEN[0]]:
        picture = frame(height, width)
        [expected] = torch_outputs(net, [picture])
        outputs = runtime.infer(picture)
        assert set(outputs) == set(NAMES)
        assert outputs["logit_8"].shape == (1, height * width // 32, 1)
        for tensor in compare_tensors([expected], [outputs]):
            assert tensor.snr_db > 80, tensor


def test_parity_report_covers_every_installed_backend(
    net: DetectorNet, onnx_file: bytes, tflite_file: bytes
) -> None:
    report = check_parity(net, {"onnx": onnx_file, "tflite": tflite_file})
    assert report.passed
    ran = {one.backend.split()[0] for one in report.backends}
    assert {"onnxruntime", "tflite"} <= ran
    assert ran | set(report.skipped) == set(BACKENDS)
    for one in report.backends:
        assert one.faces.expected > 5
        assert [tensor.name for tensor in one.tensors] == NAMES
        assert f"| {one.backend} |" in report.to_markdown()


@pytest.mark.parametrize("part", ["backbone.stem", "head.levels.1.boxes", "head.levels.2"])
def test_parity_fails_for_other_weights(part: str, onnx_file: bytes) -> None:
    net = make_net()
    with torch.no_grad():
        for parameter in net.get_submodule(part).parameters():
            parameter.mul_(1.01)
    report = check_parity(net, {"onnx": onnx_file})
    assert not report.passed
    assert "DIFFERS" in report.to_markdown()


def test_parity_names_a_graph_that_no_backend_takes(net: DetectorNet) -> None:
    with pytest.raises(ConversionError, match=r"onnxruntime|openvino"):
        check_parity(net, {"onnx": b"nonsense"})


def test_compare_tensors_gives_the_decibels_of_a_known_error() -> None:
    signal = {"logit_8": np.full((1, 4, 1), 10, np.float32)}
    noisy = {"logit_8": np.array([10, 10, 10, 12], np.float32).reshape(1, 4, 1)}
    [result] = compare_tensors([signal], [noisy])
    assert result.max_abs == 2
    assert result.snr_db == pytest.approx(20)
    assert compare_tensors([signal], [signal])[0].snr_db == np.inf


def test_compare_tensors_refuses_missing_and_misshapen_outputs() -> None:
    signal = {"logit_8": np.zeros((1, 4, 1), np.float32)}
    with pytest.raises(ConversionError, match=r"logit_8.*nothing"):
        compare_tensors([signal], [{}])
    with pytest.raises(ConversionError, match=r"\(1, 4, 1\), got \(4, 1\)"):
        compare_tensors([signal], [{"logit_8": np.zeros((4, 1), np.float32)}])


def test_compare_faces_finds_what_moved(net: DetectorNet) -> None:
    [picture] = probe_pictures()[1:]
    height, width = picture.shape[:2]
    place = Letterbox(1.0, 1.0, width, height, width, height)
    [expected] = torch_outputs(net, [picture[None]])
    same = compare_faces(net.anchors, [expected], [expected], [place])
    assert same.expected == same.matched > 0
    assert (same.extra, same.landmark_px) == (0, 0)

    points = {**expected, "landmark_8": expected["landmark_8"] + 10.0}
    points |= {f"landmark_{stride}": expected[f"landmark_{stride}"] + 10.0 for stride in (16, 32)}
    moved = compare_faces(net.anchors, [expected], [points], [place])
    assert moved.matched == same.matched
    assert moved.landmark_px > 10

    deltas = {f"delta_{stride}": expected[f"delta_{stride}"] + 1.0 for stride in (8, 16, 32)}
    shifted = compare_faces(net.anchors, [expected], [{**expected, **deltas}], [place])
    assert shifted.matched < same.matched
    assert shifted.extra > 0

    nothing = {name: np.full_like(expected[name], -99) for name in NAMES if "logit" in name}
    blind = compare_faces(net.anchors, [expected], [{**expected, **nothing}], [place])
    assert (blind.matched, blind.extra) == (0, 0)


def test_shipped_artifacts_equal_their_weights_in_torch() -> None:
    pytest.importorskip("ai_edge_litert")
    bundle = load_bundle("retinaface_mobilenet025")
    net = load_bundle_net(bundle)
    artifacts = {
        artifact.format: bundle.open(artifact)
        for artifact in bundle.artifacts
        if artifact.precision == "fp32" and artifact.format != "safetensors"
    }
    assert set(artifacts) == {"onnx", "tflite"}
    report = check_parity(net, artifacts)
    assert report.passed, report.to_markdown()
    assert sum(len(content) for content in artifacts.values()) < 4_000_000


def test_folded_logit_is_the_difference_of_the_two_classes(net: DetectorNet) -> None:
    picture = frame(64, 96)
    [folded] = torch_outputs(net, [picture])
    with torch.inference_mode():
        levels = net(torch.from_numpy(picture).permute(0, 3, 1, 2).float())
    for level, stride in zip(levels, (8, 16, 32), strict=True):
        face = torch.softmax(level.logits, -1)[..., 1:].numpy()
        np.testing.assert_allclose(1 / (1 + np.exp(-folded[f"logit_{stride}"])), face, atol=1e-5)


def test_static_tflite_has_one_signature_per_size_over_shared_weights(
    net: DetectorNet, tflite_file: bytes
) -> None:
    sizes = ((64, 96), (128, 32))
    file = to_tflite(net, sizes)
    assert len(file) < 2 * len(tflite_file)
    runtime = open_runtime("tflite", file, sizes)
    for width, height in sizes:
        picture = frame(height, width)
        results = compare_tensors(torch_outputs(net, [picture]), [runtime.infer(picture)])
        assert min(result.snr_db for result in results) > 80
    report = check_parity(net, {"tflite": file}, input_sizes={"tflite": sizes})
    assert report.passed


@pytest.mark.parametrize("size", [(100, 64), (64, 0), (64, -32)])
def test_static_size_off_the_stride_is_refused(net: DetectorNet, size: tuple[int, int]) -> None:
    with pytest.raises(InvalidOptionError, match=f"multiples of 32.*got {size[0]}x{size[1]}"):
        to_tflite(net, [size])


@pytest.mark.parametrize(
    ("function", "package"), [(to_onnx, "onnxscript"), (to_tflite, "litert_torch")]
)
def test_missing_package_names_the_extra(
    net: DetectorNet, function: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"edgeface\[convert\]"):
        function(net)


@pytest.mark.parametrize(
    ("function", "module", "name"),
    [(to_onnx, "torch.onnx", "export"), (to_tflite, "litert_torch", "signature")],
)
def test_a_failing_converter_is_a_typed_error(
    net: DetectorNet, function: Any, module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("an operator is unknown")

    monkeypatch.setattr(pytest.importorskip(module), name, fail)
    with pytest.raises(ConversionError, match=r"preset 'custom'.*an operator is unknown"):
        function(net)


def test_quiet_hides_both_streams_of_python_and_c_and_gives_them_back() -> None:
    code = """
import os, sys, warnings, logging
from edgeface.converters.quiet import quiet
print("before")
try:
    with quiet():
        print("hidden"); os.write(1, b"hidden"); os.write(2, b"hidden")
        warnings.warn("hidden"); logging.getLogger().error("hidden")
        raise ValueError
except ValueError:
    print("after"); os.write(2, b"after"); logging.getLogger().error("logged")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "afterlogged\n"
