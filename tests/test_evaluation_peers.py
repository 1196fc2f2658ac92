"""The evaluator reproduces the figures that others measured for a public detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.evaluation.run import MAX_FACES, NMS_THRESHOLD, SCORE_THRESHOLD, evaluate
from edgeface.evaluation.wider import load_wider
from edgeface.faces import Faces
from edgeface.nms import nms
from edgeface.preprocess import letterbox

STRIDES = (8, 16, 32)


def test_yunet_reaches_its_known_figures_on_wider_face(data: Path) -> None:
    predict = yunet(data / "peers/yunet_n_dynamic.onnx", long_side=640)
    report = evaluate(predict, load_wider(data / "wider/dev"))
    assert (report.easy, report.medium, report.hard) == pytest.approx(
        (0.920, 0.900, 0.753), abs=0.001
    )


def yunet(model: Path, long_side: int) -> Callable[[NDArray[np.uint8]], Faces]:
    """Decode YuNet as OpenCV's FaceDetectorYN does: score sqrt(cls * obj), box from the cell."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def predict(image: NDArray[np.uint8]) -> Faces:
        frame, placed = letterbox(image, long_side, stride=STRIDES[-1], pad_value=(0, 0, 0))
        tensor = np.ascontiguousarray(frame.transpose(0, 3, 1, 2), np.float32)
        outputs = dict(zip(names, session.run(None, {"input": tensor}), strict=True))
        boxes, scores = [], []
        for stride in STRIDES:
            classes, objects, deltas = (
                outputs[f"{name}_{stride}"][0] for name in ("cls", "obj", "bbox")
            )
            rows, columns = np.mgrid[: frame.shape[1] // stride, : frame.shape[2] // stride]
            cells = np.stack([columns.ravel(), rows.ravel()], axis=1)
            centre, half = (cells + deltas[:, :2]) * stride, np.exp(deltas[:, 2:]) * stride / 2
            boxes.append(np.hstack([centre - half, centre + half]))
            scores.append(np.sqrt(classes.clip(0, 1) * objects.clip(0, 1)).ravel())
        every, confidence = np.concatenate(boxes), np.concatenate(scores)
        above = confidence > SCORE_THRESHOLD
        scale = np.array([placed.scale_x, placed.scale_y] * 2)
        found = (every[above] / scale).astype(np.float32)
        kept = nms(found, confidence[above], NMS_THRESHOLD)[:MAX_FACES]
        return Faces(found[kept], confidence[above][kept])

    return predict
