"""Latency of every backend, end to end from a 640 x 480 picture to faces, as a Markdown table.

    python benchmarks/backends.py [--peers DIR] > table.md

One thread each. The timed calls are interleaved, one contestant after another in every round, so
that whatever else the machine does falls on all of them and the ratios hold. Cold-start figures
come from fresh processes, after one start that fills edgeface's cache on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.hardware import host

Image: TypeAlias = NDArray[np.uint8]
Detect: TypeAlias = Callable[[Image], int]

WIDTH, HEIGHT = 640, 480
SCORE, NMS, TOP_K = 0.5, 0.4, 5000
COLD_STARTS = 3
WARM_UP = 5
YUNET_STRIDES = (8, 16, 32)
BASELINE = "YuNet-s, cv2.FaceDetectorYN"


def edgeface_on(model: str, backend: str, precision: str) -> Detect:
    """Our detector, as an app makes it."""
    from edgeface import Detector

    detector = Detector(backend, model=model, precision=precision, score_threshold=SCORE, threads=1)
    return lambda image: len(detector(image))


def yunet_in_opencv(path: Path) -> Detect:
    """YuNet as OpenCV runs it."""
    detector = cv2.FaceDetectorYN.create(str(path), "", (WIDTH, HEIGHT), SCORE, NMS, TOP_K)

    def detect(image: Image) -> int:
        _, faces = detector.detect(image)
        return 0 if faces is None else len(faces)

    return detect


def yunet_in_onnxruntime(path: Path) -> Detect:
    """YuNet on ONNX Runtime with the settings of our own backend, decoded in numpy."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.inter_op_num_threads = settings.intra_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def detect(image: Image) -> int:
        blob = cv2.dnn.blobFromImage(image)
        outputs = dict(zip(names, session.run(names, {"input": blob}), strict=True))
        boxes, scores, _ = decode_yunet(outputs, image.shape[1])
        return len(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), SCORE, NMS, top_k=TOP_K))

    return detect


def decode_yunet(
    outputs: dict[str, NDArray[np.float32]], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Decode YuNet's outputs: one prior per cell, at the cell's top left corner.

    Args:
        outputs: per stride ``cls``, ``obj`` (1, cells, 1), ``bbox`` (1, cells, 4), ``kps``
            (1, cells, 10); the boxes' sizes are logarithms, all in units of the stride.
        width: pixels of a row of the network's frame.

    Returns:
        Boxes (N, 4) as x, y, width, height, scores (N,), landmarks (N, 5, 2), above ``SCORE``.
    """
    boxes, scores, points = [], [], []
    for stride in YUNET_STRIDES:
        score = np.sqrt(outputs[f"cls_{stride}"][0, :, 0] * outputs[f"obj_{stride}"][0, :, 0])
        kept = np.flatnonzero(score > SCORE)
        rows, columns = np.divmod(kept, width // stride)
        corner = np.stack([columns, rows], axis=1).astype(np.float32)
        box = outputs[f"bbox_{stride}"][0, kept]
        centre, size = (corner + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride
        boxes.append(np.hstack([centre - size / 2, size]))
        scores.append(score[kept])
        landmarks = outputs[f"kps_{stride}"][0, kept].reshape(-1, 5, 2)
        points.append((landmarks + corner[:, None]) * stride)
    return np.concatenate(boxes), np.concatenate(scores), np.concatenate(points)


def contestants(model: str, peers: Path | None) -> dict[str, Callable[[], Detect]]:
    """What is compared: a name and how to make the detector."""
    name = Path(model).name
    makers: dict[str, Callable[[], Detect]] = {
        f"{name}, {label}": partial(edgeface_on, model, backend, precision)
        for label, backend, precision in (
            ("ONNX Runtime fp32", "onnxruntime", "fp32"),
            ("OpenVINO fp32", "openvino", "fp32"),
            ("OpenVINO auto", "openvino", "auto"),
            ("LiteRT fp32", "tflite", "fp32"),
        )
    }
    if peers:
        makers[BASELINE] = partial(yunet_in_opencv, peers / "yunet_s_640_640.onnx")
        makers["YuNet-n, ONNX Runtime"] = partial(
            yunet_in_onnxruntime, peers / "yunet_n_dynamic.onnx"
        )
    return makers


def load_picture(path: Path | None) -> Image:
    """The picture, or scikit-image's astronaut, resized to fit 640 x 480 and padded."""
    if path:
        from edgeface.imageio import read_image

        image = read_image(path)
    else:
        from skimage.data import astronaut

        image = np.ascontiguousarray(astronaut()[..., ::-1])
    scale = min(WIDTH / image.shape[1], HEIGHT / image.shape[0])
    small = cv2.resize(image, None, fx=scale, fy=scale)
    right, bottom = WIDTH - small.shape[1], HEIGHT - small.shape[0]
    return np.asarray(cv2.copyMakeBorder(small, 0, bottom, 0, right, cv2.BORDER_CONSTANT), np.uint8)


def start(make: Callable[[], Detect], image: Image) -> tuple[float, float]:
    """Seconds to load, and to the first result, in this fresh process."""
    began = time.perf_counter()
    detect = make()
    loaded = time.perf_counter()
    detect(image)
    return loaded - began, time.perf_counter() - began


def cold_start(name: str) -> tuple[float, float]:
    """Medians of ``start`` over fresh processes."""
    command = [sys.executable, *sys.argv, "--cold", name]
    runs = [
        json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(1 + COLD_STARTS)
    ][1:]
    load, first = zip(*runs, strict=True)
    return statistics.median(load), statistics.median(first)


def measure(detectors: dict[str, Detect], image: Image, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every call, interleaved."""
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for turn in range(-WARM_UP, rounds):
        for name, detect in detectors.items():
            began = time.perf_counter()
            detect(image)
            if turn >= 0:
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The Markdown table."""
    lines = [
        "| detector, backend | load s | first result s | median ms | p90 ms "
        "| of FaceDetectorYN | faces |",
        "|---|---|---|---|---|---|---|",
    ]
    baseline = rows.get(BASELINE, {}).get("median")
    for name, row in rows.items():
        ratio = f"{row['median'] / baseline:.2f}" if baseline else "–"
        lines.append(
            f"| {name} | {row['load']:.2f} | {row['first']:.2f} | {row['median']:.1f} | "
            f"{row['p90']:.1f} | {ratio} | {row['faces']} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Latency of every backend, as a Markdown table.")
    parser.add_argument("--model", default="retinaface_mobilenet025", help="name or bundle folder")
    parser.add_argument("--image", type=Path, help="a picture (default: scikit-image's astronaut)")
    parser.add_argument("--rounds", type=int, default=100, help="timed calls of each")
    parser.add_argument("--peers", type=Path, help="folder of YuNet's ONNX files")
    parser.add_argument("--cold", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    image = load_picture(args.image)
    makers = contestants(args.model, args.peers)
    if args.cold:
        print(json.dumps(start(makers[args.cold], image)))
        return 0
    cold = {name: cold_start(name) for name in makers}
    detectors = {name: make() for name, make in makers.items()}
    times = measure(detectors, image, args.rounds)
    rows = {
        name: {
            "load": cold[name][0],
            "first": cold[name][1],
            "median": statistics.median(times[name]),
            "p90": float(np.percentile(times[name], 90)),
            "faces": detect(image),
        }
        for name, detect in detectors.items()
    }
    print(
        f"{host().cpu}, Python {platform.python_version()}, OpenCV {cv2.__version__}, one thread, "
    )
    print(f"{WIDTH} x {HEIGHT} picture to faces, {args.rounds} interleaved rounds. Load and first")
    print("result: fresh process that has numpy and OpenCV, caches on disk warm.\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
