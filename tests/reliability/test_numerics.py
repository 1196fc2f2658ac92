"""What each backend computes, held against kept values: a drift in either direction fails.

``EDGEFACE_WRITE_GOLDEN=1 pytest tests/reliability/test_numerics.py`` writes them anew, after a
change of the model that is meant.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeface import Detector
from edgeface.bundle import load_bundle
from edgeface.errors import ModelNotFoundError
from edgeface.runtimes.base import BACKENDS

GOLDEN = Path(__file__).with_name("golden.json")
PORTRAIT = Path(__file__).parents[2] / "docs" / "astronaut.jpg"
BACKENDS_PRECISIONS = [
    (backend, precision)
    for backend in ("onnxruntime", "openvino", "tflite")
    for precision in ("fp32", "fp16", "int8")
]
# Box and landmark in pixels, score: fp32 differs by the order of sums; int8 kernels round apart.
TOLERANCE = {"fp32": (0.02, 2e-4), "fp16": (1.0, 2e-2), "int8": (1.5, 3e-2)}


def found(backend: str, precision: str) -> dict[str, Any]:
    picture = np.asarray(cv2.imread(str(PORTRAIT)), np.uint8)
    pictures = [picture, np.ascontiguousarray(picture[:, ::-1]), picture[100:420, 100:420].copy()]
    with Detector(backend, precision=precision, input_size=320, threads=1) as detector:
        faces = [detector(one) for one in pictures]
    return {
        "boxes": [np.round(one.boxes, 4).tolist() for one in faces],
        "scores": [np.round(one.scores, 6).tolist() for one in faces],
        "landmarks": [np.round(one.landmarks, 4).tolist() for one in faces],
    }


def read() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}


def digest() -> str:
    bundle = load_bundle("retinaface_mobilenet025")
    hashes = sorted(artifact.sha256 for artifact in bundle.artifacts)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def test_the_values_are_of_the_model_that_ships() -> None:
    if os.environ.get("EDGEFACE_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps({"model": digest()}) + "\n")
    assert read()["model"] == digest(), __doc__


@pytest.mark.parametrize(("backend", "precision"), BACKENDS_PRECISIONS)
def test_no_drift(backend: str, precision: str) -> None:
    if not BACKENDS[backend].installed_package():
        pytest.skip(BACKENDS[backend].missing())
    try:
        values = found(backend, precision)
    except ModelNotFoundError:
        pytest.skip(f"the model has no {precision} artifact for {backend}")
    name = f"{backend} {precision}"
    if os.environ.get("EDGEFACE_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps({**read(), name: values}) + "\n")
    kept = read()[name]
    pixels, score = TOLERANCE[precision]
    assert [len(one) for one in values["boxes"]] == [len(one) for one in kept["boxes"]]
    assert sum(len(one) for one in kept["boxes"]) >= 3
    for key, tolerance in (("boxes", pixels), ("landmarks", pixels), ("scores", score)):
        for ours, theirs in zip(values[key], kept[key], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0, err_msg=key)
