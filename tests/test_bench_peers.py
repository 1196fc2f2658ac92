"""Peers are given their due: the faces that their own code finds, from the files of their users."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.bench.peers import OPENCV, fixed_size, open_peer, runners
from edgeface.bench.settings import Settings
from edgeface.bundle import load_bundle
from edgeface.errors import ModelIntegrityError, ModelNotFoundError

pytest.importorskip("onnxruntime")

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "community_onnx.py"


@pytest.fixture(scope="module")
def picture(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(astronaut, (640, 480)), np.uint8)


@pytest.fixture(scope="module")
def retinaface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights in the layout of the community's exporter."""
    pytest.importorskip("torch")
    weights = pytest.importorskip("edgeface.nets.weights")
    spec = importlib.util.spec_from_file_location("community_onnx", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    bundle = load_bundle("retinaface_mobilenet025")
    net = weights.load_bundle_net(bundle)
    path = tmp_path_factory.mktemp("peer") / "retinaface.onnx"
    path.write_bytes(script.to_onnx(net))
    return path


@pytest.mark.parametrize("name", ["yunet_n", "yunet_s"])
def test_yunet_finds_what_opencv_finds(data: Path, picture: NDArray[np.uint8], name: str) -> None:
    """To a hundredth of a pixel: fixed size in OpenCV, any size in ONNX Runtime."""
    settings = Settings(input_size=640)
    fixed, free = (data / "peers" / f"{name}_{kind}.onnx" for kind in ("640_640", "dynamic"))
    wanted = open_peer(fixed, OPENCV, 1, settings)(picture)
    found = open_peer(free, "onnxruntime", 1, settings)(picture)
    assert len(wanted) == len(found) == 1
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)
    np.testing.assert_allclose(found.landmarks, wanted.landmarks, atol=0.01)


def test_yunet_of_fixed_size_finds_the_same_in_a_padded_frame(
    data: Path, picture: NDArray[np.uint8]
) -> None:
    file = data / "peers" / "yunet_n_640_640.onnx"
    assert runners(file) == (OPENCV, "onnxruntime")
    assert runners(file.with_name("yunet_n_dynamic.onnx")) == ("onnxruntime",)
    large = np.asarray(cv2.resize(picture, (1280, 960)), np.uint8)
    in_opencv, padded = (
        open_peer(file, runner, 1, Settings(input_size=640))(large) for runner in runners(file)
    )
    assert len(in_opencv) == len(padded) == 1
    np.testing.assert_allclose(padded.boxes, in_opencv.boxes, atol=12)
    assert 200 < in_opencv.boxes[0, 2] - in_opencv.boxes[0, 0] < 400, "pixels of the large picture"


def test_retinaface_in_the_community_layout_finds_what_ours_finds(
    retinaface: Path, picture: NDArray[np.uint8]
) -> None:
    """The same weights by two ways: its own layout, and edgeface's graph."""
    settings = Settings(input_size=320, score_threshold=0.02)
    peer = open_peer(retinaface, "onnxruntime", 1, settings)
    with Detector(
        "onnxruntime", precision="fp32", input_size=320, score_threshold=0.02, threads=1
    ) as ours:
        wanted = ours(picture)
    found = peer(picture)
    assert len(wanted) > 1
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)
    assert set(peer.profile) == set(ours.profile)
    assert peer.profile["infer"] > 0
    peer.close()


def test_raw_class_outputs_are_read_as_well() -> None:
    """Some exports leave the softmax to the caller."""
    from edgeface.bench.layouts import _logits

    logits = np.array([[0.5, 2.5], [3.0, -1.0]], np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(_logits(logits, 0.5), [2, -4])
    np.testing.assert_allclose(_logits(probabilities, 0.5), [2, -np.inf], rtol=1e-5)


def test_files_that_are_no_known_detector_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07not a graph")
    with pytest.raises(ModelIntegrityError, match=r"expected the ONNX file .*broken\.onnx"):
        runners(broken)
    with pytest.raises(ModelNotFoundError, match="absent"):
        runners(tmp_path / "absent.onnx")
    ours = load_bundle("retinaface_mobilenet025")
    with pytest.raises(ModelIntegrityError, match=r"YuNet: .*RetinaFace: .*--model"):
        runners(ours.path / "model.fp32.onnx")


def test_sizes_of_inputs() -> None:
    assert fixed_size([1, 3, 480, 640]) == (640, 480)
    assert fixed_size(["batch", 3, "height", "width"]) is None
