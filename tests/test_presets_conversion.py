"""Presets export, equal torch, quantise and build, for every target, at a small input.

The nets are not trained. Fresh batch norms are measured on a few pictures, MobileNets take the
shipped model's backbone, and ResNets add little to their shortcuts: fresh ones amplify any noise
until nothing of the picture is left. The first step of two-step nets rejects no anchor here, as
rounding alone would decide which; test_converters_two_step.py has nets that clearly reject some.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.bundle import load_bundle
from edgeface.calibration.quantize import TARGETS, quantizable_layers, quantize
from edgeface.calibration.trial import RUNNERS, Geometry, Trial
from edgeface.converters.divergence import first_diverging
from edgeface.converters.layers import onnx_layers, torch_layers, trained_layers
from edgeface.converters.onnx import to_onnx
from edgeface.converters.parity import check_parity, pad_value, torch_outputs
from edgeface.converters.tflite import to_tflite
from edgeface.runtimes.base import OUTPUTS, Outputs, RuntimeOptions
from edgeface.runtimes.nvidia.build import build as build_engine
from edgeface.runtimes.nvidia.profiles import first_profile
from edgeface.runtimes.nvidia.vendor import find_vendor

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("litert_torch")
pytest.importorskip("nncf")
pytest.importorskip("ai_edge_quantizer")

from edgeface.nets import build, presets  # noqa: E402
from edgeface.nets.backbones.resnet import BasicBlock  # noqa: E402
from edgeface.nets.heads.two_step import REJECTED_LOGIT, TwoStepHead  # noqa: E402
from edgeface.nets.weights import read_bundle_weights  # noqa: E402

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

PORTRAIT = Path(__file__).parents[1] / "docs" / "astronaut.jpg"
HEIGHT, WIDTH = 128, 256
CALIBRATION, UNSEEN = 6, 2
EXACT_DB = 80
RESIDUAL_SHARE, MARGIN = 0.25, 1.0
# What 8 bits leave of an untrained net's outputs, and of their difference between two pictures,
# where a net that saw nothing would have a correlation of 0. NNCF averages ranges over pictures,
# and these are few.
CORRELATION = {"onnx": 0.9, "tflite": 0.9, "openvino": 0.7, "tensorrt": 0.7}
OF_DIFFERENCE = {"onnx": 0.6, "tflite": 0.6, "openvino": 0.4, "tensorrt": 0.4}
SMALLER = 0.8
# The graph has transposed convolutions as plain ones, under this name.
AS_PLAIN_CONVOLUTION = "_phases"


def crops(seed: int, count: int) -> list[NDArray[np.uint8]]:
    """Parts of a photograph, BGR uint8 (HEIGHT, WIDTH, 3)."""
    portrait = cv2.imread(str(PORTRAIT))
    rng = np.random.default_rng(seed)
    tops = rng.integers(0, portrait.shape[0] - HEIGHT, count)
    lefts = rng.integers(0, portrait.shape[1] - WIDTH, count)
    return [
        np.ascontiguousarray(portrait[top : top + HEIGHT, left : left + WIDTH])
        for top, left in zip(tops, lefts, strict=True)
    ]


def ready(preset: str, pictures: list[NDArray[np.uint8]]) -> DetectorNet:
    """A fresh net whose maps have sensible ranges."""
    torch.manual_seed(0)
    net = build(preset)
    own = net.state_dict()
    shipped = read_bundle_weights(load_bundle("retinaface_mobilenet025"))
    fitting = {
        key: value
        for key, value in shipped.items()
        if key.startswith("backbone.") and key in own and own[key].shape == value.shape
    }
    net.load_state_dict(fitting, strict=False)
    net.eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
        elif isinstance(module, BasicBlock):
            last_norm(module.residual).weight.data.mul_(RESIDUAL_SHARE)
    images = torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        net(images)
        net.eval()
        if isinstance(net.head, TwoStepHead):
            reject_nothing(net, images)
    return net


def last_norm(residual: torch.nn.Sequential) -> torch.nn.Module:
    norms = (torch.nn.BatchNorm2d, torch.nn.GroupNorm)
    return [layer for layer in residual if isinstance(layer, norms)][-1]


def reject_nothing(net: DetectorNet, images: torch.Tensor) -> None:
    """Raise a two-step net's scores until its first step lets every anchor pass."""
    head = net.training_outputs(images).head
    logits = [level.first_logits for level in head if level.first_logits is not None]
    lowest = min(float(each.min()) for each in logits)
    net.head.classes[-1].bias.add_(REJECTED_LOGIT - lowest + MARGIN)


def copied(outputs: Outputs) -> dict[str, NDArray[np.float32]]:
    return {name: value.copy() for name, value in outputs.items()}


def together(frames: Sequence[Outputs], kind: str) -> NDArray[np.float32]:
    """The outputs of one kind of all levels and frames: the coarsest level alone has few values."""
    names = sorted(name for name in frames[0] if name.startswith(kind))
    return np.concatenate([frame[name].ravel() for frame in frames for name in names])


def difference(frames: Sequence[Outputs], kind: str) -> NDArray[np.float32]:
    """What sets the outputs for one of two pictures apart from those for the other."""
    one, other = (together([frame], kind) for frame in frames)
    return one - other


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("preset", presets())
def test_a_preset_reaches_every_target(preset: str) -> None:
    seen, unseen = crops(1, CALIBRATION), crops(2, UNSEEN)
    net = ready(preset, seen)
    onnx, tflite = to_onnx(net), to_tflite(net)

    float32 = check_parity(net, {"onnx": onnx, "tflite": tflite}, pictures=unseen)
    assert len(float32.backends) >= 3, float32.skipped
    assert float32.passed, float32.to_markdown()
    layers = torch_layers(net, unseen[0][None])
    trained = trained_layers(net, layers)
    assert len(trained) > 40
    assert first_diverging(trained, onnx_layers(onnx, unseen[0][None]), EXACT_DB) is None

    frames = [picture[None] for picture in seen]
    sources = {target: tflite if target == "tflite" else onnx for target in TARGETS}
    int8 = {target: quantize(target, source, frames) for target, source in sources.items()}
    for target, content in int8.items():
        names = quantizable_layers(target, sources[target])
        strange = set(names) - {name.split(" ")[0] for name in layers}
        assert all(name.endswith(AS_PLAIN_CONVOLUTION) for name in strange)
        assert len(content) < SMALLER * len(sources[target])
    expected = torch_outputs(net, [picture[None] for picture in unseen])
    for target, content in int8.items():
        with Trial(content, RUNNERS[target], Geometry(net.anchors, pad_value(net))) as trial:
            got = [copied(trial.infer(picture[None])) for picture in unseen]
        for kind in OUTPUTS:
            one, other = together(expected, kind), together(got, kind)
            assert np.corrcoef(one, other)[0, 1] > CORRELATION[target], (target, kind)
            one, other = difference(expected, kind), difference(got, kind)
            assert np.corrcoef(one, other)[0, 1] > OF_DIFFERENCE[target], (target, kind)

    if find_spec("tensorrt_rtx"):
        profile = first_profile(RuntimeOptions((WIDTH, HEIGHT), (), True, 1, "test"))
        for graph in (onnx, int8["tensorrt"]):
            assert build_engine(find_vendor("tensorrt-rtx"), graph, profile, quick=True).engine
