"""Postprocessing against loops written from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.faces import Faces
from edgeface.postprocess import postprocess
from edgeface.preprocess import Letterbox

SPEC = AnchorSpec(
    (AnchorLevel(8, (16.0, 32.0)), AnchorLevel(16, (64.0,), (1.0, 1.5))), variances=(0.1, 0.2)
)
WIDTH, HEIGHT = 96, 64
PLACED = Letterbox(0.5, 0.4, 190, 150, WIDTH, HEIGHT)
Outputs = dict[str, NDArray[np.float32]]


def silent() -> Outputs:
    outputs = {}
    for level in SPEC.levels:
        rows, columns = level.grid(HEIGHT, WIDTH)
        count = rows * columns * level.per_cell
        outputs[f"logit_{level.stride}"] = np.full((1, count, 1), -9, np.float32)
        outputs[f"delta_{level.stride}"] = np.zeros((1, count, 4), np.float32)
        outputs[f"landmark_{level.stride}"] = np.zeros((1, count, 10), np.float32)
    return outputs


def noisy(seed: int) -> Outputs:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, 1.5, array.shape).astype(np.float32) for name, array in silent().items()
    }


def run(outputs: Outputs, placed: Letterbox = PLACED, **options: float | None) -> Faces:
    settings = {"score_threshold": 0.5, "nms_threshold": 0.4, "max_faces": None} | options
    return postprocess(outputs, SPEC, placed, **settings)


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def slow(
    outputs: Outputs, threshold: float, overlap: float
) -> list[tuple[float, list[float], list[float]]]:
    """Faces as (score, box, ten landmark numbers), cell by cell and without NumPy."""
    found = []
    for level in SPEC.levels:
        anchor = 0
        for row in range(math.ceil(HEIGHT / level.stride)):
            for column in range(math.ceil(WIDTH / level.stride)):
                for size in level.sizes:
                    for ratio in level.aspect_ratios:
                        logit = float(outputs[f"logit_{level.stride}"][0, anchor, 0])
                        dx, dy, dw, dh = map(float, outputs[f"delta_{level.stride}"][0, anchor])
                        points = outputs[f"landmark_{level.stride}"][0, anchor].tolist()
                        anchor += 1
                        score = 1 / (1 + math.exp(-logit))
                        if score <= threshold:
                            continue
                        cx, cy = (column + 0.5) * level.stride, (row + 0.5) * level.stride
                        w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                        x, y = cx + 0.1 * dx * w, cy + 0.1 * dy * h
                        bw, bh = w * math.exp(0.2 * dw), h * math.exp(0.2 * dh)
                        box = [x - bw / 2, y - bh / 2, x + bw / 2, y + bh / 2]
                        landmarks = []
                        for lx, ly in zip(points[::2], points[1::2], strict=True):
                            landmarks += [(cx + 0.1 * lx * w) / 0.5, (cy + 0.1 * ly * h) / 0.4]
                        box = [value / (0.5, 0.4)[i % 2] for i, value in enumerate(box)]
                        found.append((score, box, landmarks))
    found.sort(key=lambda face: -face[0])
    kept: list[tuple[float, list[float], list[float]]] = []
    for face in found:
        if all(iou(face[1], other[1]) <= overlap for other in kept):
            kept.append(face)
    clipped = []
    for score, (x1, y1, x2, y2), landmarks in kept:
        box = [
            min(max(x1, 0), 190),
            min(max(y1, 0), 150),
            min(max(x2, 0), 190),
            min(max(y2, 0), 150),
        ]
        if box[0] < box[2] and box[1] < box[3]:
            clipped.append((score, box, landmarks))
    return clipped


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("threshold", "overlap"), [(0.5, 0.4), (0.02, 0.6), (0.9, 0.0)])
def test_equals_the_slow_way(seed: int, threshold: float, overlap: float) -> None:
    outputs = noisy(seed)
    faces = run(outputs, score_threshold=threshold, nms_threshold=overlap)
    expected = slow(outputs, threshold, overlap)
    assert len(faces) == len(expected) > 0
    scores, boxes, landmarks = (np.array(column) for column in zip(*expected, strict=True))
    assert faces.scores == pytest.approx(scores, abs=1e-6)
    assert faces.boxes == pytest.approx(boxes, abs=1e-3)
    assert faces.landmarks.reshape(-1, 10) == pytest.approx(landmarks, abs=1e-3)


def test_one_anchor_by_hand() -> None:
    outputs = silent()
    outputs["logit_16"][0, 2 * 7, 0] = math.log(4)
    outputs["delta_16"][0, 2 * 7] = [2.5, -5, 0, 5 * math.log(0.5)]
    outputs["landmark_16"][0, 2 * 7] = [0, 0, 2.5, -2.5, 0, 0, 0, 0, 0, 0]
    faces = run(outputs, Letterbox(1, 1, WIDTH, HEIGHT, WIDTH, HEIGHT))
    # Row 1, column 1: the prior is centred at (24, 24) and 64 wide and high.
    assert faces.scores.tolist() == pytest.approx([0.8])
    assert faces.boxes.tolist() == [[8, 0, 72, 8]]
    assert faces.landmarks[0].tolist() == [[24, 24], [40, 8], [24, 24], [24, 24], [24, 24]]


def test_nothing_found() -> None:
    faces = run(silent())
    assert len(faces) == 0
    assert faces.landmarks.shape == (0, 5, 2)


def test_the_threshold_itself_is_not_above_it() -> None:
    outputs = silent()
    outputs["logit_8"][0, :, 0] = 0
    assert len(run(outputs, score_threshold=0.5)) == 0
    assert len(run(outputs, score_threshold=0.4999)) > 0


def test_extreme_thresholds() -> None:
    outputs = noisy(0)
    assert len(run(outputs, score_threshold=1.0)) == 0
    for level in SPEC.levels:
        outputs[f"delta_{level.stride}"][:] = 0
    every = sum(array.shape[1] for name, array in outputs.items() if "logit" in name)
    assert len(run(outputs, score_threshold=0.0, nms_threshold=1.0)) == every


def test_max_faces_and_top_k_keep_the_best() -> None:
    outputs = noisy(1)
    every = run(outputs)
    assert len(every) > 5
    assert run(outputs, max_faces=3).boxes.tolist() == every.boxes[:3].tolist()
    loose = run(outputs, nms_threshold=1.0)
    assert run(outputs, nms_threshold=1.0, top_k=4).scores.tolist() == loose.scores[:4].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["logit_8", "delta_8", "landmark_16"])
def test_what_is_not_finite_is_dropped(name: str, value: float) -> None:
    outputs = noisy(2)
    hit = np.zeros(outputs[name].shape[1], bool)
    hit[::3] = True
    outputs[name][0, hit, 0] = value
    faces = run(outputs, nms_threshold=1.0, score_threshold=0.1)
    stride = name.split("_")[1]
    outputs[f"logit_{stride}"][0, hit] = -9
    for other in ("delta", "landmark"):
        outputs[f"{other}_{stride}"][0, hit] = 0
    without = run(outputs, nms_threshold=1.0, score_threshold=0.1)
    assert len(without) > 0
    assert faces.boxes.tolist() == without.boxes.tolist()
    assert faces.landmarks.tolist() == without.landmarks.tolist()


@pytest.mark.parametrize("value", [3e38, -3e38, 500.0, -500.0, 1e-45])
def test_huge_numbers_give_finite_faces(value: float) -> None:
    for name in ("logit", "delta", "landmark"):
        outputs = noisy(3)
        outputs[f"{name}_8"][:] = value
        faces = run(outputs)
        assert np.isfinite(faces.boxes).all()
        assert np.isfinite(faces.landmarks).all()


def test_all_garbage_is_no_face() -> None:
    outputs = {name: np.full_like(array, np.nan) for name, array in silent().items()}
    assert len(run(outputs)) == 0
    outputs = {name: np.full_like(array, 3e38) for name, array in silent().items()}
    assert len(run(outputs)) == 0


def test_boxes_in_the_padding_are_dropped() -> None:
    outputs = silent()
    outputs["logit_8"][0, -1, 0] = 5
    assert len(run(outputs, Letterbox(1, 1, WIDTH, HEIGHT, WIDTH, HEIGHT))) == 1
    assert len(run(outputs, Letterbox(1, 1, 40, 30, WIDTH, HEIGHT))) == 0


def test_outputs_are_left_alone() -> None:
    outputs = noisy(0)
    before = {name: array.copy() for name, array in outputs.items()}
    for array in outputs.values():
        array.setflags(write=False)
    run(outputs)
    assert all(np.array_equal(before[name], outputs[name]) for name in outputs)
