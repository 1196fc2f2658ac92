"""What each backend says where its vendor's package is absent, broken or incomplete."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeface.errors import (
    BackendUnavailableError,
    InvalidOptionError,
    MissingDependencyError,
)
from edgeface.runtimes import tensorrt
from edgeface.runtimes.base import BACKENDS, RuntimeOptions, load
from edgeface.runtimes.nvidia import cuda

OPTIONS = RuntimeOptions(input_size=None, input_sizes=(), exact=True, threads=1, cache_key="none")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match=r"'openvino', 'tflite'.*got 'cuda'"):
        load("cuda", b"", OPTIONS)


@pytest.mark.parametrize("name", BACKENDS)
def test_an_absent_package_names_its_install_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeface.runtimes.base.find_spec", lambda package: None)
    with pytest.raises(MissingDependencyError) as caught:
        load(name, b"", OPTIONS)
    assert BACKENDS[name].install in str(caught.value)
    assert BACKENDS[name].packages[0] in str(caught.value)


@pytest.fixture
def fake_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a TensorRT that holds nothing but what the test writes."""
    site = tmp_path / "site"
    (site / "tensorrt").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(site))
    yield site / "tensorrt" / "__init__.py"
    sys.modules.pop("tensorrt", None)


def test_a_package_that_does_not_import_is_unavailable(fake_tensorrt: Path) -> None:
    fake_tensorrt.write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    with pytest.raises(BackendUnavailableError, match=r"libnvinfer\.so\.10.*--force-reinstall"):
        load("tensorrt", b"", OPTIONS)


def test_tensorrt_without_a_driver_names_the_driver(
    fake_tensorrt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tensorrt.write_text("class ILogger: pass")
    monkeypatch.setattr(cuda, "DRIVER", "libcuda-that-is-not-there.so.1")
    with pytest.raises(BackendUnavailableError, match=r"NVIDIA driver.*libcuda-that-is-not-there"):
        tensorrt.probe()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_vendor_reports_nothing_home(name: str, tmp_path: Path) -> None:
    code = (
        f"from edgeface.runtimes import {name} as room; import sys; room.probe(); "
        "assert sys.modules.get('openvino_telemetry') is None"
    )
    variables = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code], env=variables, cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
