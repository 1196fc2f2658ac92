"""Backends of other packages: the one of docs/plugins.md, and some that are broken."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.cli.main import main
from edgeface.errors import BackendUnavailableError, InvalidOptionError, MissingDependencyError
from edgeface.runtimes import base, plugins, probe

ROOT = Path(__file__).parents[1]
EXAMPLE = re.compile(
    r"^```(?:python|toml)\n# (edgeface_opencv/\S+|pyproject\.toml)\n(.*?)^```$", re.M | re.S
)
Install = Callable[..., Path]

needs_opencv_5 = pytest.mark.skipif(
    int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV 4 does not load the model"
)


@pytest.fixture(autouse=True)
def cache_folder(own_cache: Path) -> Path:
    return own_cache / "plugins"


@pytest.fixture
def opencv(install_plugin: Install) -> Path:
    """The plug-in that docs/plugins.md shows, installed."""
    files = dict(EXAMPLE.findall((ROOT / "docs/plugins.md").read_text()))
    project = files.pop("pyproject.toml")
    [entry_points] = re.findall(
        r'^\[project.entry-points."edgeface.runtimes"\]\n(.+)$', project, re.M
    )
    return install_plugin("edgeface-opencv", entry_points.replace('"', ""), files)


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    main(["doctor", "--json"])
    return {one["name"]: one for one in json.loads(capsys.readouterr().out)["backends"]}


@needs_opencv_5
def test_the_documented_plugin_finds_the_same_faces(
    opencv: Path, astronaut: NDArray[np.uint8]
) -> None:
    with Detector("opencv") as detector, Detector("onnxruntime", precision="fp32") as reference:
        found, expected = detector(astronaut), reference(astronaut)
        assert detector.explain().backend == "opencv"
    assert len(found) == len(expected) == 1
    assert found.boxes == pytest.approx(expected.boxes, abs=0.01)
    assert found.landmarks == pytest.approx(expected.landmarks, abs=0.01)


@needs_opencv_5
def test_auto_and_explain_know_it(opencv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Detector() as detector:
        [row] = [one for one in detector.explain().others if one.backend == "opencv"]
    assert row.artifact is not None and row.artifact.precision == "fp32"
    assert row.reason == "a plug-in of edgeface-opencv 1.0"
    description = opencv.parent / "edgeface_opencv/__init__.py"
    preferring = description.read_text().replace(
        "name=", "preference='the vision unit is here', name="
    )
    description.write_text(preferring)
    monkeypatch.delitem(sys.modules, "edgeface_opencv")
    plugins._load.cache_clear()
    with Detector() as detector:
        assert detector.explain().backend == "opencv"
        assert detector.explain().why == "the vision unit is here"


@needs_opencv_5
def test_doctor_lists_it(opencv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = report(capsys)["opencv"]
    assert row["available"] is True
    assert (row["plugin"], row["version"]) == ("edgeface-opencv 1.0", cv2.__version__)


def test_one_that_crashes_is_passed_over(opencv: Path) -> None:
    runtime = opencv.parent / "edgeface_opencv/runtime.py"
    runtime.write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    description = opencv.parent / "edgeface_opencv/__init__.py"
    description.write_text(description.read_text().replace("name=", "preference='here', name="))
    with pytest.warns(UserWarning, match=r"opencv: it crashed with SIGILL"):
        Detector().close()
    with pytest.raises(BackendUnavailableError, match="SIGILL"):
        Detector("opencv")


def test_one_without_its_vendor_says_what_to_install(opencv: Path) -> None:
    description = opencv.parent / "edgeface_opencv/__init__.py"
    description.write_text(description.read_text().replace('"cv2"', '"acme_npu"'))
    with pytest.raises(MissingDependencyError, match=r"'acme_npu' is not installed.*pip install"):
        Detector("opencv")


def test_one_without_its_device_is_not_tried(
    opencv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "npu0"
    description = opencv.parent / "edgeface_opencv/__init__.py"
    pattern = f"devices=({str(tmp_path / 'npu*')!r},), name="
    description.write_text(description.read_text().replace("name=", pattern))
    asked: list[object] = []
    verdict = probe.Verdict("opencv", True, "1", "")
    monkeypatch.setattr(probe, "_ask", lambda *arguments: asked.append(arguments) or verdict)
    assert "none of its devices is here" in probe.probe("opencv").reason
    assert asked == []
    device.touch()
    assert probe.probe("opencv").available
    (tmp_path / "npu1").touch()
    probe.probe("opencv")
    assert len(asked) == 2, "another device is probed anew"


@pytest.mark.parametrize(
    ("entry_points", "code", "reason"),
    [
        ("acme = acme_backend:BACKEND", "raise RuntimeError('no licence')", "no licence"),
        ("acme = acme_backend:BACKEND", "import sys; sys.exit(3)", "SystemExit(3)"),
        ("acme = acme_backend:NONESUCH", "", "NONESUCH"),
        ("acme = acme_nonesuch:BACKEND", "", "acme_nonesuch"),
        ("acme = acme_backend:BACKEND", "BACKEND = 'acme'", "to be an edgeface.runtimes.base.Bac"),
        (
            "acme = acme_backend:BACKEND",
            "from edgeface.runtimes.base import Backend\n"
            "BACKEND = Backend('other', 'm', ('numpy',), '', ('onnx',))",
            "the name of the entry point, got 'other'",
        ),
        (
            "acme = acme_backend:BACKEND",
            "from edgeface.runtimes.base import Backend\n"
            "BACKEND = Backend('acme', 'm', 'numpy', '', ('onnx',))",
            "expected its packages to be a tuple of names, got 'numpy'",
        ),
        (
            "openvino = acme_backend:BACKEND",
            "from edgeface.runtimes.base import Backend\n"
            "BACKEND = Backend('openvino', 'm', ('numpy',), '', ('onnx',))",
            "expected a name of its own, got 'openvino'",
        ),
    ],
)
def test_a_broken_one_is_told_and_left_out(
    entry_points: str,
    code: str,
    reason: str,
    install_plugin: Install,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install_plugin("acme", entry_points, {"acme_backend.py": code})
    with pytest.warns(UserWarning, match="edgeface leaves out the plug-in") as told:
        assert list(base.backends()) == list(base.BACKENDS)
    assert reason in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [broken] = plugins.plugins().broken
    assert reason in broken.reason
    if broken.name == "acme":
        with pytest.raises(BackendUnavailableError, match="the plug-in 'acme' cannot be used"):
            base.backend("acme")


def test_doctor_and_explain_list_a_broken_one(
    install_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin("acme", "acme = acme_backend:BACKEND", {"acme_backend.py": "BACKEND = 7"})
    assert main(["doctor", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("leaves out the plug-in 'acme'") == 1
    [row] = [one for one in json.loads(printed.out)["backends"] if one["name"] == "acme"]
    assert row["available"] is False
    assert row["plugin"] == "acme 1.0"
    assert "got int" in str(row["reason"])
    with Detector() as detector:
        assert "cannot run  acme: expected" in str(detector.explain())


def test_two_of_one_name_leave_the_first(install_plugin: Install) -> None:
    code = (
        "from edgeface.runtimes.base import Backend\n"
        "BACKEND = Backend('acme', 'm', ('numpy',), '', ('onnx',))"
    )
    install_plugin("acme", "acme = acme_one:BACKEND", {"acme_one.py": code})
    install_plugin("brand", "acme = acme_two:BACKEND", {"acme_two.py": code})
    with pytest.warns(UserWarning, match=r"got one that acme 1.0 uses"):
        found = base.backends()
    assert found["acme"].distribution == "acme 1.0"


def test_metadata_is_read_once_until_the_folder_changes(
    opencv: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opencv.parent
    assert "opencv" in base.backends()
    read: list[str] = []
    original = plugins.distributions

    def distributions(path: list[str]) -> object:
        read.extend(path)
        return original(path=path)

    monkeypatch.setattr(plugins, "distributions", distributions)
    assert "opencv" in base.backends()
    assert str(folder) not in read
    (opencv / "entry_points.txt").unlink()
    (opencv / "METADATA").unlink()
    opencv.rmdir()
    os.utime(folder)
    assert "opencv" not in base.backends()
    assert str(folder) in read


def test_a_known_backend_needs_no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("plug-ins were looked for")

    monkeypatch.setattr(plugins, "plugins", never)
    assert base.backend("onnxruntime").name == "onnxruntime"
    with pytest.raises(AssertionError):
        base.backend("acme")


def test_an_unknown_name_lists_the_plugins_too(opencv: Path) -> None:
    with pytest.raises(InvalidOptionError, match=r"'openvino'.*'opencv', got 'cuda'"):
        Detector("cuda")
