"""``edgeface export --evaluate``: int8 is written where it is accurate, and refused elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeface.bundle import load_bundle
from edgeface.calibration import quantize
from edgeface.cli.main import main
from edgeface.converters import bundle as converters_bundle

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

MODEL = "retinaface_mobilenet025"
LAYERS = ["neck.lateral.1.0", "head.levels.1.landmarks"]


def noisy(source: bytes, level: float) -> bytes:
    model = onnx.load_from_string(source)
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("net.") and tensor.name.endswith(".weight"):
            weights = onnx.numpy_helper.to_array(tensor)
            array = (weights * (1 + level * rng.normal(size=weights.shape))).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return bytes(model.SerializeToString())


@pytest.fixture
def export(evaluation_folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command with a stand-in for the quantiser, which adds noise to the weights."""
    bundle = load_bundle(MODEL)
    artifact = bundle.find("onnx", "fp32")
    assert artifact is not None
    content = bundle.open(artifact)
    monkeypatch.setattr(converters_bundle, "to_onnx", lambda net, *size: content)
    monkeypatch.setattr(quantize, "quantizable_layers", lambda target, source: LAYERS)
    pictures = tmp_path / "calibration"
    (pictures / "images").mkdir(parents=True)
    lines = []
    for number in range(16):
        cv2.imwrite(str(pictures / "images" / f"{number}.png"), np.zeros((80, 100, 3), np.uint8))
        lines += [f"# {number}.png", "10 20 30 40"]
    (pictures / "label.txt").write_text("\n".join(lines))
    judged = [word for folder in evaluation_folders for word in ("--evaluate", str(folder))]

    def run(level: float, *options: str) -> int:
        monkeypatch.setattr(quantize, "quantize", lambda target, source, *_: noisy(source, level))
        return main([
            "export", "--model", MODEL, "--target", "onnx", "--precision", "int8",
            "--data", str(pictures), "--images", "16", "-o", str(tmp_path / "out"),
            *judged, *options,
        ])  # fmt: skip

    return run


def test_accurate_int8_is_written_with_its_figures(
    export: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(0.0, "--explain", str(tmp_path / "layers")) == 0
    bundle = load_bundle(tmp_path / "out")
    assert bundle.find("onnx", "int8") is not None
    figures = bundle.metadata["int8"]["onnx"]
    assert figures["average_precision_of_fp32"] == figures["landmark_error_of_fp32"] == 1
    assert "accepted_accuracy_drop" not in figures
    assert len(bundle.metadata["calibration"]["sha256"]) == 64
    assert "int8 for onnx: easy 100.00%" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "layers").iterdir()} == {
        "onnx.md", "onnx.json", "onnx.png",
    }  # fmt: skip
    costs = json.loads((tmp_path / "layers" / "onnx.json").read_text())
    assert [cost["layer"] for cost in costs] == LAYERS


def test_a_refusal_leaves_the_old_bundle_as_it_was(
    export: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(0.0) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for options in ([], ["--accept-accuracy-drop"]):
        assert export(3.0, "--force", *options) == 1
        assert "half of its layers in float" in capsys.readouterr().err
        after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert after == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "fp32", "--evaluate", "DIR"], "expected --evaluate with int8 alone"),
        (
            ["--precision", "int8", "--data", "D", "--explain", "E"],
            "expected --evaluate with --exp",
        ),
        (["--precision", "int8", "--data", "D", "--accept-accuracy-drop"], "expected --evaluate"),
    ],
)
def test_the_gate_needs_int8_and_pictures(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--model", MODEL, *options, "-o", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
