"""Two-step detectors on every backend: one graph, folded, of any size in multiples of 128."""

from __future__ import annotations

import pytest

from edgeface.converters.divergence import find_divergence
from edgeface.converters.onnx import to_onnx
from edgeface.converters.parity import check_parity, pad_value, probe_pictures
from edgeface.converters.tflite import to_tflite
from edgeface.preprocess import letterbox

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")

import onnx  # noqa: E402

from edgeface.nets import DetectorNet, build  # noqa: E402
from edgeface.nets.heads.two_step import REJECTED_LOGIT  # noqa: E402
from edgeface.training.objectives import build_objective  # noqa: E402
from edgeface.training.recipe import Recipe  # noqa: E402

EXACT_DB = 80.0


def varied(preset: str) -> DetectorNet:
    """A net whose outputs vary, and whose first step clearly rejects a part of the anchors."""
    torch.manual_seed(0)
    net = build(preset)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.2)
    net.eval()
    last = net.head.classes[-1]
    with torch.no_grad():
        last.weight.mul_(1 / first_logits(net).std())
        logits = first_logits(net).sort().values
        chosen = logits[len(logits) // 5 : len(logits) // 2]
        widest = int(chosen.diff().argmax())
        last.bias.add_(REJECTED_LOGIT - chosen[widest : widest + 2].mean())
    return net


def first_logits(net: DetectorNet) -> torch.Tensor:
    """The first step's logits for the pictures that parity is checked on."""
    logits = []
    for picture in probe_pictures():
        frame, _ = letterbox(picture, None, stride=net.anchors.max_stride, pad_value=pad_value(net))
        head = net.training_outputs(torch.from_numpy(frame).float().permute(0, 3, 1, 2)).head
        logits += [level.first_logits.flatten() for level in head if level.first_logits is not None]
    return torch.cat(logits)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "preset",
    ["refineface_mobilenet025:width=16", "isrn_mobilenet025:width=32,se=on"],
)
def test_every_backend_computes_what_torch_computes(preset: str) -> None:
    net = varied(preset)
    with torch.no_grad():
        rejected = first_logits(net) < REJECTED_LOGIT
    assert 0.1 < rejected.float().mean() < 0.6
    files = {"onnx": to_onnx(net), "tflite": to_tflite(net)}
    report = check_parity(net, files)
    assert len(report.backends) >= 2
    for one in report.backends:
        assert min(tensor.snr_db for tensor in one.tensors) >= EXACT_DB, report.to_markdown()
        # Untrained, many faces score alike: rounding decides which of two goes first through NMS.
        assert one.faces.matched >= 0.8 * one.faces.expected > 0, report.to_markdown()
    frame, _ = letterbox(
        probe_pictures()[0], None, stride=net.anchors.max_stride, pad_value=pad_value(net)
    )
    for backend, format in {"onnxruntime": "onnx", "openvino": "onnx", "tflite": "tflite"}.items():
        assert find_divergence(net, format, backend, files[format], frame, 60) is None
    check_nothing_of_training(net, files)


def check_nothing_of_training(net: DetectorNet, files: dict[str, bytes]) -> None:
    """The module of feature supervision or segmentation, which the objective has, is in no file."""
    system = net.system
    terms = {"refineface": (("fsm", 1.0),), "isrn": (("segmentation", 0.05),)}[system]
    objective = build_objective(net, Recipe(net.preset, supervision=terms))
    [module] = (name for name, _ in objective.named_children())
    assert module == {"refineface": "supervision", "isrn": "segmentation"}[system]
    assert all(module.encode() not in content for content in files.values())
    graph = onnx.load_from_string(files["onnx"]).graph
    names = [tensor.name.split(".") for tensor in graph.initializer]
    parts = {name[1] for name in names if name[0] == "net"}
    assert {"backbone", "neck", "head"} <= parts <= {"backbone", "neck", "context", "head", "_mean"}
