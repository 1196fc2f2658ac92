"""The conversion report: every target and precision beside fp32, in Markdown, JSON and a plot."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.bundle import Bundle, load_bundle
from edgeface.calibration.accuracy import load_evaluation_data
from edgeface.calibration.rendering import to_markdown, to_plot
from edgeface.calibration.report import SIZES, File, bundle_files, report
from edgeface.cli.main import main
from edgeface.errors import ModelNotFoundError

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

MODEL = "retinaface_mobilenet025"


@pytest.fixture
def bundle() -> Bundle:
    return load_bundle(MODEL)


def ruined(bundle: Bundle) -> File:
    """The model's ONNX file with noise on one level's landmarks, as TensorRT's int8."""
    artifact = bundle.find("onnx", "fp32")
    assert artifact is not None
    model = onnx.load_from_string(bundle.open(artifact))
    for tensor in model.graph.initializer:
        if "landmarks.weight" in tensor.name and "bias" not in tensor.name:
            weights = onnx.numpy_helper.to_array(tensor) * np.float32(3)
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    return File("tensorrt", "int8", model.SerializeToString(), "")


def test_every_target_is_measured_beside_fp32(
    bundle: Bundle, evaluation_folders: list[Path]
) -> None:
    files = [one for one in bundle_files(bundle, {}) if one.precision == "fp32"]
    assert [one.target for one in files] == ["onnx", "openvino", "tflite", "tensorrt"]
    data = load_evaluation_data(evaluation_folders)
    result = report(bundle, [*files[::3], ruined(bundle)], data, rounds=3)

    fp32, reference, int8 = result.rows
    assert fp32.passed
    assert fp32.speed == 1
    assert reference.milliseconds == fp32.milliseconds  # one file, one runtime: measured once
    assert not int8.passed
    assert int8.snr_db["landmark"] < 0
    assert int8.snr_db["logit"] == np.inf
    assert set(int8.verdicts) == set(SIZES)

    record = result.to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["rows"][2]["accuracy"]["original size"]["within_bounds"] is False
    assert record["rows"][2]["snr_db"]["logit"] is None
    weights = bundle.find("safetensors", "fp32")
    assert weights is not None
    assert record["weights_sha256"] == weights.sha256
    assert "onnxruntime" in record["tools"]

    text = to_markdown(result, "conversion.png")
    assert text.count("| tensorrt | int8 |") == 3
    assert "| NO |" in text
    assert "not in the bundle" in text
    assert str(evaluation_folders[0]) not in text + json.dumps(record)
    pytest.importorskip("matplotlib")
    picture = cv2.imdecode(np.frombuffer(to_plot(result), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.std() > 10


def test_files_that_the_bundle_lacks_can_be_covered(bundle: Bundle) -> None:
    files = bundle_files(bundle, {("openvino", "fp16"): b"half"})
    [half] = [one for one in files if one.content == b"half"]
    assert (half.target, half.precision, half.name, half.backend) == (
        "openvino", "fp16", "", "openvino",
    )  # fmt: skip


def test_without_fp32_there_is_nothing_to_compare_with(
    bundle: Bundle, evaluation_folders: list[Path]
) -> None:
    with pytest.raises(ModelNotFoundError, match="expected an ONNX file at fp32"):
        report(bundle, [ruined(bundle)], load_evaluation_data(evaluation_folders))


def test_the_command_writes_the_three_files(
    evaluation_folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("matplotlib")
    output = tmp_path / "report"
    wider, labels = map(str, evaluation_folders)
    options = ["--long-side-only", "--limit", "1", "-o", str(output)]
    command = ["report", "--model", MODEL, "--evaluate", wider, "--evaluate", labels, *options]
    assert main(command) == 0
    assert {path.name for path in output.iterdir()} == {
        "conversion.md", "conversion.json", "conversion.png",
    }  # fmt: skip
    text = (output / "conversion.md").read_text("utf-8")
    assert text == capsys.readouterr().out.removesuffix("\n")
    assert "original size" not in text
    for target in ("onnx", "openvino", "tflite", "tensorrt"):
        assert f"| {target} | fp32 |" in text


def test_the_command_names_what_is_missing(
    evaluation_folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["report", "--model", MODEL, "--evaluate", str(evaluation_folders[0])]
    assert main([*command, "-o", str(tmp_path / "report")]) == 1
    assert "name one folder of each kind" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
