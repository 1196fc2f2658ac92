from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeface import Detector
from edgeface.errors import BackendUnavailableError, InvalidOptionError
from edgeface.hardware import host
from edgeface.runtimes import child as child_module
from edgeface.runtimes import probe as module
from edgeface.runtimes.base import BACKENDS
from edgeface.runtimes.child import Child
from edgeface.runtimes.probe import Verdict, probe

# TensorRT stands for any vendor: it is never installed here, so that a fake takes its name.
FAKE = "tensorrt"
ILLEGAL = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
Fake = Callable[..., None]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_verdicts", {})
    return tmp_path / "cache"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Write a fake vendor package, as pip would install it."""
    site = tmp_path / "site"

    def write(code: str, release: str = "1.0") -> None:
        (site / FAKE).mkdir(parents=True, exist_ok=True)
        (site / FAKE / "__init__.py").write_text(code)
        for old in site.glob("*.dist-info/METADATA"):
            old.unlink()
            old.parent.rmdir()
        info = site / f"{FAKE}-{release}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {FAKE}\nVersion: {release}\n")
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(str(site))
    return write


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every subprocess that the probe starts."""
    calls: list[Any] = []

    def start(*arguments: str) -> Child:
        calls.append(arguments)
        return Child(*arguments)

    monkeypatch.setattr(module, "Child", start)
    return calls


@pytest.mark.parametrize(
    ("name", "package"),
    [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("tflite", "ai-edge-litert")],
)
def test_an_installed_backend_is_available(name: str, package: str) -> None:
    verdict = probe(name, timeout=60)
    assert verdict == Verdict(name, True, version(package), "", verdict.device)
    assert verdict.device


def test_an_absent_package_needs_no_subprocess(
    spawned: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeface.runtimes.base.find_spec", lambda name: None)
    for name, backend in BACKENDS.items():
        verdict = probe(name)
        assert not verdict.available
        assert "not installed" in verdict.reason
        assert backend.install in verdict.reason
    assert spawned == []


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match=r"'onnxruntime'.*got 'cuda'"):
        probe("cuda")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ILLEGAL, "SIGILL (an illegal instr"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV (a segmentation"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os._exit(7)", "code 7"),
        ("import sys; sys.exit('bad licence')", "code 1: bad licence"),
        ("raise ImportError('libnvinfer.so.10: no such file')", "libnvinfer.so.10"),
        ("raise FileNotFoundError('nvinfer.dll')", "nvinfer.dll"),
        ("", "ILogger"),
    ],
)
def test_a_vendor_that_fails_is_a_verdict(fake: Fake, code: str, reason: str) -> None:
    fake(code)
    verdict = probe(FAKE, timeout=60)
    assert not verdict.available
    assert reason in verdict.reason


def test_an_illegal_instruction_is_passed_over_within_five_seconds(fake: Fake) -> None:
    """The best of three: a loaded machine takes seconds to start any process."""
    fake(ILLEGAL)
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        assert "SIGILL" in probe(FAKE, refresh=True).reason
        seconds.append(time.monotonic() - started)
        if seconds[-1] <= 5:
            break
    assert min(seconds) <= 5


def test_an_illegal_instruction_leaves_the_other_backends_working(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine prefers the crashing backend; "auto" says so once, and finds faces elsewhere."""
    fake(ILLEGAL)
    monkeypatch.setattr("edgeface.startup.host", lambda: replace(host(), nvidia=True))
    with pytest.warns(UserWarning, match=r"tensorrt: it crashed with SIGILL"):
        detector = Detector(input_size=64)
    assert detector.explain().backend in ("openvino", "tflite", "onnxruntime")
    assert len(detector(np.zeros((64, 64, 3), np.uint8))) == 0
    [refused] = [one for one in detector.explain().others if one.backend == FAKE]
    assert refused.artifact is None
    with pytest.raises(BackendUnavailableError, match="SIGILL"):
        Detector(FAKE)


def test_a_hang_is_a_verdict(fake: Fake) -> None:
    fake("import time; time.sleep(120)")
    verdict = probe(FAKE, timeout=1.0)
    assert verdict == Verdict(FAKE, False, "1.0", verdict.reason)
    assert "hung" in verdict.reason
    assert "within 1 s" in verdict.reason


def test_a_backend_that_does_nothing_hangs_long_before_its_patience_ends(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "STALL", 1.5)
    fake("import time; time.sleep(120)")
    started = time.monotonic()
    verdict = probe(FAKE, timeout=100)
    assert "it hung: it did nothing for 1.5 s" in verdict.reason
    assert time.monotonic() - started < 60


def test_a_slow_backend_that_computes_is_waited_for(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a board does that imports from an SD card: seconds of work without a word."""
    monkeypatch.setattr(child_module, "STALL", 1.5)
    fake("import time; start = time.monotonic()\nwhile time.monotonic() < start + 4: pass")
    assert "ILogger" in probe(FAKE, timeout=100).reason


def test_noise_on_stdout_does_not_hide_the_verdict(fake: Fake) -> None:
    fake("print('[TRT] loading')\nclass ILogger: pass")
    assert "NVIDIA driver" in probe(FAKE, timeout=60).reason


def test_a_kept_verdict_starts_no_subprocess(spawned: list[Any]) -> None:
    first = probe("onnxruntime", timeout=60)
    module._verdicts.clear()
    assert probe("onnxruntime") == first
    assert len(spawned) == 1
    probe("onnxruntime", timeout=60, refresh=True)
    assert len(spawned) == 2


def test_another_wheel_is_probed_again(fake: Fake, spawned: list[Any]) -> None:
    fake("import os; os.abort()")
    assert "SIGABRT" in probe(FAKE, timeout=60).reason
    assert "SIGABRT" in probe(FAKE, timeout=60).reason
    assert len(spawned) == 1
    fake("raise ImportError('half installed')", release="2.0")
    assert "half installed" in probe(FAKE, timeout=60).reason
    assert len(spawned) == 2


def test_another_cpu_is_probed_again(spawned: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    probe("onnxruntime", timeout=60)
    monkeypatch.setattr(module, "cpu_signature", lambda: "Linux aarch64 Cortex-A76 asimddp")
    probe("onnxruntime", timeout=60)
    assert len(spawned) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"0" * 64 + b"\n{}"])
def test_a_damaged_cache_is_ignored(cache_folder: Path, spawned: list[Any], damage: bytes) -> None:
    probe("onnxruntime", timeout=60)
    [entry] = (cache_folder / "edgeface" / "probe").iterdir()
    entry.write_bytes(damage)
    module._verdicts.clear()
    assert probe("onnxruntime", timeout=60).available
    assert len(spawned) == 2


def test_a_cache_entry_of_another_layout_is_ignored(spawned: list[Any]) -> None:
    probe("onnxruntime", timeout=60)
    [key] = module._verdicts
    module.cache.remember("probe", *key, data=b'{"usable": true}')
    module._verdicts.clear()
    assert probe("onnxruntime", timeout=60).available
    assert len(spawned) == 2


def test_without_a_writable_cache_one_process_asks_once(
    cache_folder: Path, spawned: list[Any]
) -> None:
    cache_folder.write_text("a file where the folder should be")
    assert probe("onnxruntime", timeout=60).available
    assert probe("onnxruntime", timeout=60).available
    assert len(spawned) == 1


@pytest.mark.parametrize(("attribute", "value"), [("frozen", True), ("executable", "")])
def test_an_app_that_cannot_start_python_probes_itself(
    attribute: str, value: object, spawned: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, attribute, value, raising=False)
    assert probe("onnxruntime").available
    assert spawned == []
