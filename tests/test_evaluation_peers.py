"""The evaluator reproduces the figures that others measured for a public detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeface.bench.peers import OnnxPeer
from edgeface.bench.settings import Settings
from edgeface.evaluation.run import MAX_FACES, NMS_THRESHOLD, SCORE_THRESHOLD, evaluate
from edgeface.evaluation.wider import load_wider

pytest.importorskip("onnxruntime")


def test_yunet_reaches_its_known_figures_on_wider_face(data: Path) -> None:
    settings = Settings(640, SCORE_THRESHOLD, NMS_THRESHOLD, MAX_FACES)
    predict = OnnxPeer(data / "peers/yunet_n_dynamic.onnx", 1, settings)
    report = evaluate(predict, load_wider(data / "wider/dev"))
    assert (report.easy, report.medium, report.hard) == pytest.approx(
        (0.920, 0.900, 0.753), abs=0.001
    )
