from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgeface import bundle as bundle_module
from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.bundle import Artifact, Bundle, write_manifest
from edgeface.cli import doctor
from edgeface.cli.main import main
from edgeface.cores import CoreType
from edgeface.hardware import Host
from edgeface.runtimes.base import BACKENDS
from edgeface.runtimes.probe import Verdict
from edgeface.thermal import Thermal

DAMAGED = "it crashed with SIGILL"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models that holds one."""
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    artifacts = []
    for form, content in {"onnx": b"\x08\x08", "tflite": b"tflite"}.items():
        (folder / f"model.{form}").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        artifacts.append(Artifact(form, "fp32", f"model.{form}", digest))
    anchors = AnchorSpec((AnchorLevel(8, (16.0,)),))
    write_manifest(Bundle("small", "small", folder, anchors, tuple(artifacts)))
    monkeypatch.setattr(bundle_module, "SHIPPED", folder.parent)
    return folder


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Verdict]:
    """What probing says: all run but TensorRT, which is absent, and OpenVINO, which crashes."""
    found = {name: Verdict(name, True, "1.2.3", "") for name in BACKENDS}
    for name in ("tensorrt", "tensorrt-rtx"):
        found[name] = Verdict(name, False, None, BACKENDS[name].missing())
    found["openvino"] = Verdict("openvino", False, "2026.1", DAMAGED)

    def probe(name: str, *, refresh: bool) -> Verdict:
        assert refresh, "doctor must not trust kept verdicts"
        return found[name]

    monkeypatch.setattr(doctor, "probe", probe)
    return found


def report(capsys: pytest.CaptureFixture[str], code: int) -> Any:
    assert main(["doctor", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_json_is_stable(
    shipped: Path, verdicts: dict[str, Verdict], capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(capsys, 0)
    assert list(found) == ["edgeface", "python", "machine", "backends", "models", "healthy"]
    assert set(found["machine"]) == {
        "system", "machine", "cpu", "flags", "cores", "board", "nvidia",
        "core_types", "quota", "threads", "arithmetic", "thermal",
    }  # fmt: skip
    assert set(found["machine"]["thermal"]) == {"celsius", "slowed", "governor"}
    assert found["healthy"] is True
    assert [one["name"] for one in found["backends"]] == list(BACKENDS)
    backends = {one["name"]: one for one in found["backends"]}
    assert backends["openvino"] == {
        "name": "openvino",
        "available": False,
        "version": "2026.1",
        "reason": DAMAGED,
        "device": "",
        "legacy": False,
        "plugin": None,
        "install": "pip install 'edgeface[openvino]'",
        "note": None,
    }
    assert backends["onnxruntime"]["install"] is None
    [model] = found["models"]
    assert list(model) == ["name", "problem", "artifacts", "auto", "measured"]
    assert [(one["file"], one["problem"]) for one in model["artifacts"]] == [
        ("model.onnx", None),
        ("model.tflite", None),
    ]
    usable = [one for one in model["auto"] if one["usable"]]
    assert {one["backend"] for one in usable} == {"onnxruntime", "tflite"}
    assert all(one["file"] and one["reason"] for one in usable)


def test_the_table_says_what_runs_and_how_to_mend_the_rest(
    shipped: Path, verdicts: dict[str, Verdict], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()

    def row(start: str) -> str:
        [line] = [line for line in lines if line.strip().startswith(start)]
        return " ".join(line.split())

    assert "pip install 'edgeface[tensorrt]'" in row("tensorrt ")
    assert row("openvino") == f"openvino - 2026.1 {DAMAGED}"
    assert row("onnxruntime") == "onnxruntime runs 1.2.3"
    assert row("onnx ") == "onnx fp32 intact"
    assert row("not measured") == "not measured: 'edgeface tune' finds the fastest on this machine"
    assert row("auto 1:").endswith(("usually the fastest on ARM CPUs", "runs on any machine"))


def test_the_table_describes_a_board(
    shipped: Path,
    verdicts: dict[str, Verdict],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    board = Host(
        "Linux", "aarch64", "Cortex-A53", frozenset({"asimd"}), 6, "Firefly-RK3399", False,
        (CoreType("Cortex-A72", 2, 1800), CoreType("Cortex-A53", 4, 1416, big=False)), 5.5,
    )  # fmt: skip
    hot = Thermal(84.6, ("cores 4 5 capped at 1200 of 1800 MHz",), "ondemand")
    monkeypatch.setattr(doctor, "host", lambda: board)
    monkeypatch.setattr(doctor, "read_thermal", lambda: hot)
    main(["doctor"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:6] == [
        "machine Firefly-RK3399, Linux aarch64, no NVIDIA driver",
        "cores 2 x Cortex-A72 at 1800 MHz + 4 x Cortex-A53 at 1416 MHz (little), "
        "time for 5.5 by cgroup; 2 threads by default",
        "arithmetic neon, no fp16 dotprod i8mm",
        "temperature 85 °C; cores 4 5 capped at 1200 of 1800 MHz",
        "governor ondemand",
    ]


def test_a_legacy_package_is_told(
    shipped: Path,
    verdicts: dict[str, Verdict],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = {"tflite_runtime", "onnxruntime"}
    monkeypatch.setattr("edgeface.runtimes.base.find_spec", lambda name: name in there or None)
    notes = {one["name"]: one["note"] for one in report(capsys, 0)["backends"]}
    assert notes["onnxruntime"] is None
    assert "tflite_runtime" in notes["tflite"]
    assert "pip install 'edgeface[tflite]'" in notes["tflite"]
    main(["doctor"])
    assert notes["tflite"] in capsys.readouterr().out


def test_a_gpu_is_named_with_what_was_not_verified(
    shipped: Path, verdicts: dict[str, Verdict], capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts["tensorrt"] = Verdict("tensorrt", True, "11.4.1", "", "NVIDIA L4 (SM 8.9)")
    assert main(["doctor"]) == 0
    [row] = [line for line in capsys.readouterr().out.splitlines() if "11.4.1" in line]
    assert "runs" in row and "NVIDIA L4 (SM 8.9); this release" in row
    assert "tested without a GPU" in row


def test_a_damaged_model_fails(
    shipped: Path, verdicts: dict[str, Verdict], capsys: pytest.CaptureFixture[str]
) -> None:
    (shipped / "model.onnx").write_bytes(b"other")
    found = report(capsys, 1)
    assert found["healthy"] is False
    onnx, tflite = found["models"][0]["artifacts"]
    assert "expected sha256" in onnx["problem"]
    assert tflite["problem"] is None
    main(["doctor"])
    assert "expected sha256" in capsys.readouterr().out


def test_a_damaged_manifest_fails(
    shipped: Path, verdicts: dict[str, Verdict], capsys: pytest.CaptureFixture[str]
) -> None:
    (shipped / "manifest.json").write_text("{")
    assert "expected a manifest" in report(capsys, 1)["models"][0]["problem"]
    assert main(["doctor"]) == 1
    assert "expected a manifest" in capsys.readouterr().out


def test_no_backend_fails(
    shipped: Path, verdicts: dict[str, Verdict], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in BACKENDS:
        verdicts[name] = Verdict(name, False, None, "broken")
    assert report(capsys, 1)["healthy"] is False
    main(["doctor"])
    assert "nothing runs it" in capsys.readouterr().out


def test_no_model_fails(
    verdicts: dict[str, Verdict],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bundle_module, "SHIPPED", tmp_path)
    assert report(capsys, 1)["models"] == []
    main(["doctor"])
    assert "reinstall edgeface" in capsys.readouterr().out


def test_this_machine_is_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = report(capsys, 0)
    assert {one["name"] for one in found["backends"] if one["available"]} == {
        "onnxruntime",
        "openvino",
        "tflite",
    }
    assert "retinaface_mobilenet025" in [model["name"] for model in found["models"]]
