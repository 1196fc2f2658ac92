"""RetinaFace's variants against the paper: anchors, deformable convolution, options, exports."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeface.anchors import prior_boxes
from edgeface.converters.onnx import to_onnx
from edgeface.converters.parity import check_parity
from edgeface.converters.tflite import to_tflite
from edgeface.errors import ConversionError, InvalidOptionError

torch = pytest.importorskip("torch")

from edgeface.nets import DetectorNet, build  # noqa: E402
from edgeface.nets.context import PerLevel  # noqa: E402
from edgeface.nets.deformable import DeformableConv2d, sample_taps  # noqa: E402
from edgeface.nets.heads.anchor import SharedAnchorHead  # noqa: E402
from edgeface.nets.layers import conv_bn  # noqa: E402
from edgeface.nets.presets.retinaface import HEAVY_ANCHORS  # noqa: E402


def randomised(layer: DeformableConv2d) -> DeformableConv2d:
    torch.nn.init.normal_(layer.sampling.weight, 0, 0.2)
    torch.nn.init.normal_(layer.sampling.bias, 0, 1.5)
    return layer


def brute_force(layer: DeformableConv2d, features: torch.Tensor) -> torch.Tensor:
    """Equation 1 of Deformable ConvNets v2, cell by cell, tap by tap, corner by corner."""
    batch, channels, rows, columns = features.shape
    choices = layer.sampling(features)
    kernel = layer.convolution.weight
    out = torch.zeros(batch, len(kernel), rows, columns, dtype=features.dtype)
    cells = itertools.product(range(batch), range(rows), range(columns), range(3), range(3))
    for n, row, column, i, j in cells:
        tap = 3 * i + j
        y = row + i - 1 + choices[n, tap, row, column].item()
        x = column + j - 1 + choices[n, 9 + tap, row, column].item()
        sample = torch.zeros(channels, dtype=features.dtype)
        for r, c in itertools.product((int(np.floor(y)), int(np.floor(y)) + 1),
                                      (int(np.floor(x)), int(np.floor(x)) + 1)):  # fmt: skip
            if 0 <= r < rows and 0 <= c < columns:
                sample += features[n, :, r, c] * (1 - abs(y - r)) * (1 - abs(x - c))
        modulation = torch.sigmoid(choices[n, 18 + tap, row, column])
        out[n, :, row, column] += kernel[:, :, i, j] @ sample * modulation
    return out


def test_deformable_convolution_equals_a_loop() -> None:
    torch.manual_seed(0)
    layer = randomised(DeformableConv2d(3, 4)).double()
    features = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(features), brute_force(layer, features))


def test_deformable_convolution_starts_as_half_a_convolution() -> None:
    torch.manual_seed(0)
    layer = DeformableConv2d(3, 4)
    features = torch.randn(2, 3, 6, 6)
    plain = torch.nn.functional.conv2d(features, layer.convolution.weight, padding=1)
    torch.testing.assert_close(layer(features), plain / 2, atol=1e-5, rtol=1e-4)


def test_gradients_of_sampling() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    offsets = torch.randn(1, 2, 6, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sample_taps, (features, offsets), atol=1e-6)


def test_heavy_anchors() -> None:
    """Section 4.2: 102,300 anchors at 640 x 640, from 16 to 406 pixels, 75 % of them on P2."""
    priors = prior_boxes(HEAVY_ANCHORS, 640, 640)
    assert len(priors) == 102_300
    assert (priors[:, 2] < 32).mean() == pytest.approx(0.75, abs=0.001)
    table = [(16, 20.16, 25.40), (32, 40.32, 50.80), (64, 80.63, 101.59), (128, 161.26, 203.19)]
    table.append((256, 322.54, 406.37))
    assert [level.sizes for level in HEAVY_ANCHORS.levels] == [
        pytest.approx(row, abs=0.01) for row in table
    ]


@pytest.mark.parametrize("preset", ["retinaface_mobilenet025", "retinaface_resnet18"])
def test_heavy_variant(preset: str) -> None:
    net = build(f"{preset}:heavy=on,width=16").eval()
    with torch.inference_mode():
        levels = net(torch.zeros(1, 3, 64, 128))
    cells = [128 * 64 // stride**2 for stride in (4, 8, 16, 32, 64)]
    assert [level.logits.shape for level in levels] == [(1, 3 * count, 2) for count in cells]
    deformable = {
        name for name, module in net.named_modules() if isinstance(module, DeformableConv2d)
    }
    assert len(deformable) == 3 + 5 * 5
    assert all(name.startswith(("neck.finer.smooth", "context")) for name in deformable)
    plain = build(f"{preset}:heavy=on,deformable=off,width=16")
    assert not [m for m in plain.modules() if isinstance(m, DeformableConv2d)]


def test_stem_of_stride_4() -> None:
    net = build("retinaface_mobilenet025:stem=7x7")
    assert net.preset == "retinaface_mobilenet025:stem=7x7"
    assert net.backbone.stage1[0][0].weight.shape == (8, 3, 7, 7)
    shapes = [tuple(maps.shape[1:]) for maps in net.backbone(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(64, 8, 12), (128, 4, 6), (256, 2, 3)]
    with pytest.raises(InvalidOptionError, match="stem of 3x3, 7x7, got '5x5'"):
        build("retinaface_mobilenet025:stem=5x5")


def test_without_context_modules() -> None:
    names = [name for name, _ in build("retinaface_resnet18:context=off").named_parameters()]
    assert not [name for name in names if name.startswith("context")]


@pytest.fixture(scope="module")
def deformable_net() -> DetectorNet:
    """One level of the heavy variant, whose deformable convolution looks where it likes."""
    torch.manual_seed(0)

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv_bn(3, 8, 3, 4)
            self.stem[1].running_var.fill_(60.0**2)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [self.stem(images)]

    anchors = type(HEAVY_ANCHORS)(HEAVY_ANCHORS.levels[:1])
    context = PerLevel([randomised(DeformableConv2d(8, 8))])
    head = SharedAnchorHead(8, anchors.levels)
    return DetectorNet(Backbone(), torch.nn.Identity(), context, head, anchors).eval()


def test_onnx_of_a_deformable_convolution(deformable_net: DetectorNet) -> None:
    pytest.importorskip("onnxscript")
    report = check_parity(deformable_net, {"onnx": to_onnx(deformable_net)})
    assert report.passed, report.to_markdown()
    assert len(report.backends) >= 1


def test_tflite_of_a_deformable_convolution_is_static(deformable_net: DetectorNet) -> None:
    pytest.importorskip("litert_torch")
    with pytest.raises(ConversionError, match=r"'context.0'.*input size.*deformable=off"):
        to_tflite(deformable_net)
    size = (96, 64)
    file = to_tflite(deformable_net, [size])
    report = check_parity(deformable_net, {"tflite": file}, input_sizes={"tflite": [size]})
    assert report.passed, report.to_markdown()
