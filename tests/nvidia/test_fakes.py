"""The fakes offer nothing that the real libraries lack: names, members, numbers of arguments.

And what the real ones say where there is no GPU.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from edgeface import Detector
from edgeface.errors import BackendUnavailableError
from edgeface.hardware import host
from edgeface.runtimes.nvidia import cuda as room

FAKES = Path(__file__).with_name("fakes")
# What the library calls the classes that the fake's functions return.
RETURNED = {
    "_Config": "IBuilderConfig",
    "_Network": "INetworkDefinition",
    "_ParserError": "ParserError",
    "_Profile": "IOptimizationProfile",
    "_RuntimeConfig": "IRuntimeConfig",
    "_TimingCache": "ITimingCache",
}
OWN = ("_State", "Any", "Severity")


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_tensorrt(request: pytest.FixtureRequest) -> None:
    real = pytest.importorskip("tensorrt_rtx", reason="needs the extra 'tensorrt-rtx'")
    gpu = request.getfixturevalue("gpu")
    compared = 0
    for fake in (gpu.tensorrt, gpu.tensorrt_rtx):
        for name, ours in inspect.getmembers(fake, inspect.isclass):
            if name in OWN or ours is IntEnum:
                continue
            theirs = getattr(real, RETURNED.get(name, name))
            assert public(ours) - public(IntEnum) <= public(theirs), name
            compared += 1
    assert compared > 30
    # The other way round: only TensorRT-RTX has what tells it from TensorRT proper.
    assert not hasattr(gpu.tensorrt, "IRuntimeCache")


@pytest.mark.parametrize("name", ["runtime", "driver", "nvrtc"])
def test_cuda(name: str) -> None:
    pytest.importorskip("cuda.bindings", reason="needs the package cuda-python")
    real = importlib.import_module(f"cuda.bindings.{name}")
    tree = ast.parse((FAKES / "cuda" / "bindings" / f"{name}.py").read_text())
    compared = 0
    for node in tree.body:
        called = isinstance(node, ast.FunctionDef) and node.name.startswith(("cu", "nvrtc"))
        if called:
            assert arguments(getattr(real, node.name)) == len(node.args.args), node.name
        if isinstance(node, ast.ClassDef) and hasattr(real, node.name):
            members = {entry.targets[0].id for entry in node.body if isinstance(entry, ast.Assign)}
            assert members <= public(getattr(real, node.name)), node.name
            called = True
        compared += called
    assert compared >= 4


def arguments(function: Any) -> int:
    """How many a function of cuda-python takes, as the first line of its documentation shows."""
    line = function.__doc__.splitlines()[0]
    inside = line[line.index("(") + 1 : line.rindex(")")]
    return inside.count(",") + bool(inside)


@pytest.mark.skipif(host().nvidia, reason="there is a GPU")
def test_cuda_python_without_a_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings", reason="needs the package cuda-python")
    monkeypatch.setattr(room, "DRIVER", None)
    cuda = room.load_cuda("pip install cuda-python")
    assert cuda.runtime.__name__ == "cuda.bindings.runtime"
    with pytest.raises(
        BackendUnavailableError, match=r"for CUDA 1\d\.\d, but none answers: install"
    ):
        cuda.device()
    with pytest.raises(room.CudaError, match="cudaMalloc: cudaErrorInsufficientDriver"):
        cuda.allocate(16)


@pytest.mark.skipif(host().nvidia, reason="there is a GPU")
def test_tensorrt_rtx_without_a_driver_is_told() -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra 'tensorrt-rtx'")
    with pytest.raises(BackendUnavailableError, match=r"tensorrt-rtx.*NVIDIA driver, but libcuda"):
        Detector("tensorrt-rtx")
