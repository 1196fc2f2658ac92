"""DF2S2 and FANet exported: what each backend computes, and that nothing of training is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import pytest

from edgeface.converters.divergence import find_divergence
from edgeface.converters.onnx import to_onnx
from edgeface.converters.parity import check_parity, compare_tensors, torch_outputs
from edgeface.converters.resizable import make_resizable
from edgeface.converters.tflite import to_tflite
from edgeface.errors import ConversionError
from edgeface.runtimes.base import RuntimeOptions, load

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("litert_torch")

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

SYSTEMS = ["df2s2", "fanet"]
TRAINING_ONLY = {"df2s2": "segmentation.masks", "fanet": "earlier.0.0.classes"}
# Traced away from all of them; the last is padded to a multiple of the stride of 128.
SIZES = [(128, 384), (256, 128), (300, 200)]


class Exported(NamedTuple):
    """A net, its files, and the TFLite file before it could be resized."""

    net: DetectorNet
    onnx: bytes
    tflite: bytes
    static: bytes


def make_net(system: str) -> DetectorNet:
    """A narrow net on a backbone of four convolutions, whose outputs vary as a trained one's."""
    from edgeface.nets import build
    from edgeface.nets.backbones.mobilenet import depthwise_separable
    from edgeface.nets.layers import conv_bn

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv_bn(3, 32, stride=4, activation=torch.nn.ReLU())
            self.layers = torch.nn.ModuleList(
                depthwise_separable(width, 2 * width, 2) for width in (32, 64, 128)
            )

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            maps = [self.stem(images)]
            for layer in self.layers:
                maps.append(layer(maps[-1]))
            return maps

    torch.manual_seed(0)
    net = build(f"{system}_mobilenet025:width=8")
    net.backbone = Backbone()
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(torch.rand(2, 3, 128, 128) * 255)
    return net.eval()


@pytest.fixture(scope="module", params=SYSTEMS)
def exported(request: pytest.FixtureRequest) -> Exported:
    net = make_net(request.param)
    static = []

    def resizable(content: bytes) -> bytes:
        static.append(content)
        return make_resizable(content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeface.converters.tflite.make_resizable", resizable)
        tflite = to_tflite(net)
    return Exported(net, to_onnx(net), tflite, static[0])


def picture(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width)
    blobs = rng.uniform(0, 255, (9, 9, 3)).astype(np.float32)
    return (
        cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
        .clip(0, 255)
        .astype(np.uint8)
    )


def rewrite(content: bytes, code: str, **values: Any) -> bytes:
    """Set options of every operator of a kind in a TFLite file."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for operator in model.subgraphs[0].operators:
        kind = model.operatorCodes[operator.opcodeIndex].builtinCode
        if kind == getattr(schema.BuiltinOperator, code):
            vars(operator.builtinOptions).update(values)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def operators(tflite: bytes) -> list[str]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=tflite, num_threads=1)
    return [operator["op_name"] for operator in interpreter._get_ops_details()]


def test_every_backend_equals_torch_at_sizes_that_no_converter_saw(exported: Exported) -> None:
    pytest.importorskip("openvino")
    pictures = [picture(*size) for size in [*SIZES, SIZES[0]]]
    artifacts = {"onnx": exported.onnx, "tflite": exported.tflite}
    report = check_parity(exported.net, artifacts, pictures=pictures)
    assert report.passed, report.to_markdown()
    ran = {one.backend.split()[0] for one in report.backends}
    assert ran >= {"onnxruntime", "openvino", "tflite"}
    strides = (4, 8, 16, 32, 64, 128)
    for one in report.backends:
        assert [tensor.name for tensor in one.tensors] == [
            f"{kind}_{stride}" for stride in strides for kind in ("logit", "delta", "landmark")
        ]
        assert one.faces.expected > 20


def test_upsampling_names_no_size(exported: Exported) -> None:
    kinds = operators(exported.tflite)
    assert not {"RESIZE_BILINEAR", "TRANSPOSE_CONV", "SHAPE", "TRANSPOSE"} & set(kinds)
    fanet = exported.net.system == "fanet"
    assert kinds.count("DEPTH_TO_SPACE") == (5 if fanet else 3)
    assert kinds.count("MIRROR_PAD") == (5 if fanet else 0)
    graph = onnx.load_from_string(exported.onnx).graph
    upsampling = "Resize" if fanet else "ConvTranspose"
    assert [node.op_type for node in graph.node].count(upsampling) == (5 if fanet else 3)


def test_nothing_of_training_is_in_the_graph(exported: Exported) -> None:
    from edgeface.training.objectives import build_objective
    from edgeface.training.recipe import Recipe

    system = exported.net.system
    objective = build_objective(exported.net, Recipe(exported.net.preset))
    module, *_ = (name for name, _ in objective.named_modules() if name == TRAINING_ONLY[system])
    graph = onnx.load_from_string(exported.onnx).graph
    names = {tensor.name for tensor in graph.initializer}
    parts = {name.split(".")[1] for name in names if name.startswith("net.")}
    assert parts <= {"backbone", "neck", "context", "head", "_mean"}
    everything = " ".join(names | {node.name for node in graph.node}).encode()
    for part in module.split(".")[0], module:
        for content in (everything, exported.onnx, exported.tflite):
            assert part.encode() not in content
    predictions = [node for node in graph.node if node.op_type == "Reshape"]
    assert len(predictions) == 3 * len(exported.net.anchors.levels)


def test_layers_of_the_tflite_file_are_told_apart(exported: Exported) -> None:
    frame = picture(256, 128)[None]
    net, content = exported.net, exported.tflite
    assert find_divergence(net, "tflite", "tflite", content, frame, 60) is None
    layer = "neck.0.blocks.1.transform" if net.system == "df2s2" else "neck.hierarchies.0.1.deep.0"
    other = make_net(net.system)
    with torch.no_grad():
        other.get_submodule(layer).weight.mul_(1.1)
    found = find_divergence(other, "tflite", "tflite", content, frame, 60)
    assert found is not None
    assert found.layer.split(" ")[0] == layer


def test_before_it_is_resizable_a_file_has_what_delegates_know(exported: Exported) -> None:
    """Static files, as NPU delegates want them, are these."""
    net, content = exported.net, exported.static
    kinds = operators(content)
    upsampling = "RESIZE_BILINEAR" if net.system == "fanet" else "TRANSPOSE_CONV"
    assert upsampling in kinds
    assert not {"DEPTH_TO_SPACE", "MIRROR_PAD"} & set(kinds)
    frame = picture(640, 512)[None]
    [expected] = torch_outputs(net, [frame])
    runtime = load("tflite", content, RuntimeOptions(None, (), exact=True, threads=1, cache_key=""))
    for tensor in compare_tensors([expected], [runtime.infer(frame)]):
        assert tensor.snr_db > 80, tensor
    values = {"alignCorners": True} if net.system == "fanet" else {"strideH": 1}
    refused = "corners not aligned" if net.system == "fanet" else "kernel and stride 2"
    with pytest.raises(ConversionError, match=f"{refused}.*name the input sizes"):
        make_resizable(rewrite(content, upsampling, **values))
