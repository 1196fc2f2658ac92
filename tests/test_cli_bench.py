"""``edgeface bench``: tables, files, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.bench import comparison, growth, paper
from edgeface.cli.main import main

QUICK = ("--backend", "onnxruntime", "--precision", "fp32", "--rounds", "2", "--size", "128x96")


def test_tables_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    files = {kind: tmp_path / f"speed.{kind}" for kind in ("json", "md", "png")}
    code = main([
        "bench", *QUICK, "--precision", "fp32", "int8", "--no-starts", "--stages",
        "--json", str(files["json"]), "--output", str(files["md"]), "--plot", str(files["png"]),
    ])  # fmt: skip
    printed = capsys.readouterr().out
    assert code == 0
    assert files["md"].read_text() == printed
    assert "| retinaface_mobilenet025, onnxruntime int8 | " in printed
    assert "all but infer" in printed and "![" in printed
    record = json.loads(files["json"].read_text())
    assert [row["precision"] for row in record["candidates"]] == ["fp32", "int8"]
    assert record["candidates"][1]["accuracy"]["hard"] > 0.5
    assert record["machine"]["cpu"]
    image = cv2.imread(str(files["png"]))
    assert image is not None and image.shape[1] > 500


def test_against_peers_evaluated(
    data: Path, evaluation_folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ratios to each peer, and average precision that was measured in the same run."""
    peers = [str(data / "peers" / f"yunet_{kind}.onnx") for kind in ("n_dynamic", "s_640_640")]
    wider = str(evaluation_folders[0])
    code = main(["bench", *QUICK, "--no-starts", "--against", *peers, "--evaluate", wider])
    printed = capsys.readouterr().out
    assert code == 0
    assert "of yunet_n_dynamic, ONNX Runtime | of yunet_s_640_640, cv2.FaceDetectorYN" in printed
    rows = [line for line in printed.splitlines() if line.endswith("| 1 pictures |")]
    assert len(rows) == 4, "each candidate was evaluated"
    assert all(" | 1.000 | 1.000 | 1.000 | " in row for row in rows)


def test_growth_and_paper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "SIZES", ((320, 240), (640, 480)))
    monkeypatch.setattr(growth, "CROWDED", (320, 240))
    monkeypatch.setattr(growth, "CROWDS", (0, 9))
    monkeypatch.setattr(growth, "BATCHES", (1, 2))
    pytest.importorskip("matplotlib")
    file, plot = tmp_path / "growth.json", tmp_path / "growth.png"
    assert main(["bench", *QUICK, "--growth", "--json", str(file), "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert "](growth.png)" in printed and cv2.imread(str(plot)) is not None
    assert "ms per megapixel" in printed and "flat within 20%" in printed
    curves = json.loads(file.read_text())["curves"]
    assert list(curves) == [
        growth.WHOLE, growth.SHRUNK, growth.FACES, growth.THREADS, growth.BATCH
    ]  # fmt: skip
    assert [point["faces"] for point in curves[growth.FACES]] == [0, 9]
    assert [point["step"] for point in curves[growth.BATCH]] == ["1", "2"]

    monkeypatch.setattr(paper, "HD", (640, 480))
    assert main(["bench", *QUICK, "--paper"]) == 0
    printed = capsys.readouterr().out
    assert "Intel i7-6700K (4 cores) | 17.2 | 130.4 | 5.5 | 50.3 |" in printed
    assert "| retinaface_mobilenet025, onnxruntime fp32 | " in printed


def test_without_scikit_image_it_measures_drawn_faces(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    assert main(["bench", *QUICK, "--size", "640x480", "--no-starts"]) == 0
    printed = capsys.readouterr().out
    assert "eight drawn faces at 640 x 480" in printed
    row = next(line for line in printed.splitlines() if line.startswith("| retinaface"))
    assert row.endswith("| 8 |")


def test_growth_needs_a_face(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "black.png"
    cv2.imwrite(str(picture), np.zeros((48, 64, 3), np.uint8))
    assert main(["bench", *QUICK, "--growth", "--image", str(picture)]) == 1
    assert "expected a picture with a face" in capsys.readouterr().err


def test_an_interruption_writes_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "measure_start", interrupt)
    file = tmp_path / "speed.json"
    assert main(["bench", *QUICK, "--json", str(file)]) == 130
    assert "**Interrupted" in capsys.readouterr().out
    assert json.loads(file.read_text())["interrupted"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--rounds", "0"], "expected at least 1 round, got 0"),
        (["--backend", "nonsense"], "expected backend 'auto' or one of"),
        (["--precision", "int4"], "expected precision 'auto'"),
        (["--threads", "0"], "expected threads to be a positive integer"),
        (["--model", "nothing"], "expected a shipped model"),
        (["--image", "absent.jpg"], "absent.jpg does not exist"),
        (["--image", __file__], "expected a whole picture"),
        (["--json", "/dev/null/x/speed.json"], "expected --json to name a file"),
        (["--output", "/dev/null/x/speed.md"], "expected --output to name a file"),
        (["--against", __file__], "expected the ONNX file of a detector"),
        (["--against", "absent.onnx"], "absent.onnx cannot be read"),
        (["--evaluate", "absent"], "expected a folder images"),
        (["--accuracy", "absent.json"], "edgeface bench --json"),
        (["--growth", "--against", "x.onnx"], "without --against"),
        (["--paper", "--plot", "x.png"], "expected --plot with the comparison"),
    ],
)
def test_bad_input_is_refused(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", *QUICK, "--no-starts", *options]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


def test_a_plot_without_matplotlib_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["bench", *QUICK, "--plot", "x.png"]) == 1
    assert "pip install 'edgeface[bench]'" in capsys.readouterr().err


def test_a_plot_without_figures_keeps_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "x.png"
    command = ["bench", *QUICK, "--no-starts", "--input-size", "96x96", "--plot", str(plot)]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "expected average precision to plot" in captured.err
    assert "p50 ms" in captured.out
    assert not plot.exists()


@pytest.mark.parametrize("text", ["640", "0x480", "axb", "640x480x3"])
def test_sizes_are_checked(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--size", text])
    assert "expected a size (640x480)" in capsys.readouterr().err


def test_picture_is_put_into_the_size(
    tmp_path: Path, astronaut: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "portrait.png"
    cv2.imwrite(str(picture), astronaut)
    assert main(["bench", *QUICK, "--no-starts", "--image", str(picture)]) == 0
    assert "portrait.png at 128 x 96" in capsys.readouterr().out
