"""ONNX Runtime's CUDA provider: used where it loads, and never claimed where it did not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgeface.hardware import host
from edgeface.runtimes import onnxruntime as room
from edgeface.runtimes.base import CUDA_DEVICE, RuntimeOptions, load

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
Options = Callable[..., RuntimeOptions]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A machine with a GPU and a build with the CUDA provider; the providers that sessions get."""
    seen: list[Any] = []
    session = onnxruntime.InferenceSession

    def start(data: bytes, settings: Any, providers: list[Any]) -> Any:
        seen.append(providers)
        return session(data, settings, providers=[CPU])

    monkeypatch.setattr(room, "host", lambda: replace(host(), nvidia=True))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    return seen


def loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sessions say that the CUDA provider has loaded."""
    start = onnxruntime.InferenceSession

    class Session:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._session = start(*arguments, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def get_providers(self) -> list[str]:
            return [CUDA, CPU]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)


def test_a_provider_that_loads_is_told(
    asked: list[Any], model: bytes, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads(monkeypatch)
    runtime = load("onnxruntime", model, options())
    assert runtime.describe()["device"] == CUDA_DEVICE
    assert asked == [[(CUDA, {"use_tf32": "0"}), CPU]]
    load("onnxruntime", model, options(exact=False))
    assert asked[1] == [(CUDA, {"use_tf32": "1"}), CPU]


def test_a_provider_that_silently_did_not_load_is_told(
    asked: list[Any], model: bytes, options: Options
) -> None:
    runtime = load("onnxruntime", model, options())
    assert asked[0][0][0] == CUDA
    assert runtime.describe()["device"].startswith("CPU, for the CUDA provider did not load")
    assert len(runtime.infer(np.zeros((1, 64, 64, 3), np.uint8))) == 9


def test_no_provider_is_asked_for_without_a_driver(
    asked: list[Any], model: bytes, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "host", lambda: replace(host(), nvidia=False))
    assert load("onnxruntime", model, options()).describe()["device"] == "CPU"
    assert asked == [[CPU]]


def test_its_libraries_are_found_beside_it(
    asked: list[Any],
    model: bytes,
    options: Options,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[str] = []

    def preload() -> None:
        calls.append("preload")
        print("Failed to load libcudnn.so.9")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    load("onnxruntime", model, options())
    assert calls == ["preload"]
    assert capsys.readouterr().out == ""


def test_a_real_session_falls_back_without_a_word(
    model: bytes, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other tests imitate, where this build has no CUDA provider."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has the CUDA provider")
    monkeypatch.setattr(room, "host", lambda: replace(host(), nvidia=True))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    runtime = load("onnxruntime", model, options())
    assert runtime.describe()["device"].startswith("CPU, for")
