"""Presets with fresh weights export and equal torch, layer by layer.

Two-step nets are tested with made weights in test_converters_two_step.py: with fresh ones rounding
alone decides which anchors their first step rejects.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeface.converters.divergence import first_diverging
from edgeface.converters.layers import onnx_layers, torch_layers
from edgeface.converters.onnx import to_onnx
from edgeface.converters.parity import check_parity

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from edgeface.nets import build, presets  # noqa: E402

ONE_STEP = [name for name in presets() if not name.startswith(("isrn", "refineface"))]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ONE_STEP)
def test_onnx_equals_torch(preset: str) -> None:
    torch.manual_seed(0)
    net = build(preset).eval()
    file = to_onnx(net)
    picture = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    report = check_parity(net, {"onnx": file}, pictures=[picture])
    assert report.passed, report.to_markdown()
    stride = net.anchors.max_stride
    size = (1, stride, 2 * stride, 3)
    frame = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    expected = torch_layers(net, frame)
    assert len(expected) > 40
    assert first_diverging(expected, onnx_layers(file, frame), 80) is None
