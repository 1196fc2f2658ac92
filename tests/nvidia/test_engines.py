"""Engines over a fake TensorRT: how they are built, kept and replaced, and every way to fail."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeface import cache
from edgeface.errors import BackendUnavailableError, MissingDependencyError, ModelIntegrityError
from edgeface.runtimes.base import RuntimeOptions, load
from edgeface.runtimes.nvidia import cuda as room
from edgeface.runtimes.nvidia import engines, runtime
from edgeface.runtimes.nvidia.profiles import Profile, first_profile, profile_for
from edgeface.runtimes.nvidia.progress import Progress

FLAVOURS = ("tensorrt", "tensorrt-rtx")
Options = Callable[..., RuntimeOptions]


def entries(folder: str) -> list[Path]:
    root = cache.cache_dir()
    assert root is not None
    return sorted((root / folder).glob("*"))


@pytest.mark.parametrize("name", FLAVOURS)
def test_an_engine_is_built_once(gpu: Any, model: bytes, options: Options, name: str) -> None:
    assert "built in" in load(name, model, options()).describe()["engines"]
    assert "from the cache" in load(name, model, options()).describe()["engines"]
    assert len(gpu.tensorrt.state.builds) == 1
    assert len(entries(name)) == 1


CHANGES: dict[str, Callable[[Any], Any]] = {
    "library": lambda gpu: setattr(gpu.tensorrt, "__version__", "10.9.1"),
    "GPU": lambda gpu: setattr(gpu.world, "name", b"Other GPU"),
    "compute capability": lambda gpu: setattr(gpu.world, "minor", 6),
    "CUDA of the driver": lambda gpu: setattr(gpu.world, "driver", 13010),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_machine_builds_again(gpu: Any, model: bytes, options: Options, what: str) -> None:
    load("tensorrt", model, options())
    CHANGES[what](gpu)
    load("tensorrt", model, options())
    assert len(gpu.tensorrt.state.builds) == 2
    assert len(entries("tensorrt")) == 2


def test_another_driver_builds_again(
    gpu: Any, model: bytes, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("tensorrt", model, options())
    monkeypatch.setattr(engines, "nvidia_driver", lambda: "NVRM version: 580.65.06")
    load("tensorrt", model, options())
    assert len(gpu.tensorrt.state.builds) == 2


@pytest.mark.parametrize(
    "changes",
    [{"cache_key": "other"}, {"exact": False}, {"quick": True}, {"input_size": (64, 64)}],
    ids=["model", "exact", "quick", "profile"],
)
def test_another_model_or_option_builds_again(
    gpu: Any, model: bytes, options: Options, changes: dict[str, Any]
) -> None:
    load("tensorrt", model, options())
    load("tensorrt", model, options(**changes))
    first, second = gpu.tensorrt.state.builds
    assert len(entries("tensorrt")) == 2
    assert second["tf32"] is ("exact" in changes)
    assert (second["level"] == 0) is ("quick" in changes)
    assert first["tf32"] is False and first["level"] == 3


def test_rtx_builds_for_the_gpu_that_is_here(gpu: Any, model: bytes, options: Options) -> None:
    load("tensorrt-rtx", model, options())
    config = gpu.tensorrt.state.builds[0]["config"]
    assert config.num_compute_capabilities == 1
    assert config._target == gpu.tensorrt_rtx.ComputeCapability.CURRENT


def test_timings_of_kernels_are_kept(gpu: Any, model: bytes, options: Options) -> None:
    for key in "abc":
        load("tensorrt", model, options(cache_key=key))
    assert [build["timings"] for build in gpu.tensorrt.state.builds] == [b"", b"t", b"tt"]


def test_a_truncated_engine_is_removed_and_built_again(
    gpu: Any, model: bytes, options: Options
) -> None:
    load("tensorrt", model, options())
    [entry] = entries("tensorrt")
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])
    gpu.tensorrt.state.loads = 0
    load("tensorrt", model, options())
    assert gpu.tensorrt.state.loads == 1, "only the new engine is loaded"
    assert len(gpu.tensorrt.state.builds) == 2
    assert entry.read_bytes() == whole


def test_an_engine_that_the_library_refuses_is_removed_before_another_is_built(
    gpu: Any, model: bytes, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("tensorrt", model, options())
    [key] = keys_of_a_load(model, options, monkeypatch)
    cache.remember("tensorrt", *key, data=b"an engine of another GPU")
    gpu.tensorrt.state.loads = 0
    gpu.tensorrt.state.build_error = "no kernel"
    with pytest.raises(BackendUnavailableError, match="no kernel"):
        load("tensorrt", model, options())
    assert entries("tensorrt") == []
    with pytest.raises(BackendUnavailableError, match="no kernel"):
        load("tensorrt", model, options())
    assert gpu.tensorrt.state.loads == 1, "a broken engine is loaded once, never twice"
    gpu.tensorrt.state.build_error = ""
    load("tensorrt", model, options())
    assert len(entries("tensorrt")) == 1


def keys_of_a_load(
    model: bytes, options: Options, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[object, ...]]:
    """Keys under which a load looks for engines."""
    keys: list[tuple[object, ...]] = []
    recall = cache.recall

    def look(kind: str, *key: object) -> bytes | None:
        if kind == "tensorrt":
            keys.append(key)
        return recall(kind, *key)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "recall", look)
        load("tensorrt", model, options())
    return keys


def test_a_new_engine_that_does_not_load_is_not_kept(
    gpu: Any, model: bytes, options: Options
) -> None:
    gpu.tensorrt.state.load_error = "built for another\nGPU"
    with pytest.raises(
        BackendUnavailableError, match=r"load the engine .* for Fake GPU \(SM 8\.9\).*another GPU"
    ):
        load("tensorrt", model, options())
    assert entries("tensorrt") == []
    assert gpu.tensorrt.state.loads == 1


def test_no_writable_cache_is_needed(
    gpu: Any, model: bytes, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    load("tensorrt", model, options())


@pytest.mark.parametrize(
    ("told", "error", "remedy"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 1 GiB)", "memory ran out", "close other"),
        ("cudaErrorMemoryAllocation", "memory ran out", "smaller input_size"),
        ("Could not find any implementation for node conv", "implementation", "onnxruntime"),
    ],
)
def test_a_failed_build_says_why(
    gpu: Any, model: bytes, options: Options, told: str, error: str, remedy: str
) -> None:
    gpu.tensorrt.state.build_error = told
    with pytest.raises(BackendUnavailableError, match=f"{error}.*{remedy}") as caught:
        load("tensorrt", model, options())
    assert told in str(caught.value)


def test_an_operator_that_the_parser_rejects_is_named(
    gpu: Any, model: bytes, options: Options
) -> None:
    gpu.tensorrt.state.rejected_operator = "DeformConv"
    with pytest.raises(ModelIntegrityError, match=r"'DeformConv' \(node 'n1'\): no importer regis"):
        load("tensorrt", model, options())


@pytest.mark.parametrize("data", [b"", b"no model" * 50])
def test_damaged_models_are_refused(gpu: Any, options: Options, data: bytes) -> None:
    with pytest.raises(ModelIntegrityError, match=r"model that 'tensorrt' can load, got: .+; rein"):
        load("tensorrt", data, options())


DRIVERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "none": (lambda world: setattr(world, "driver", 0), "none answers: install the NVIDIA driver"),
    "old": (
        lambda world: setattr(world, "driver", 11040),
        r"CUDA 12\.6, but it supports CUDA 11\.4 only: update .*cuda-python==11\.\*.*tensorrt-cu11",
    ),
    "no GPU": (
        lambda world: world.fail.update(cudaGetDeviceCount="cudaErrorNoDevice"),
        "no GPU: look at 'nvidia-smi' and CUDA_VISIBLE_DEVICES",
    ),
    "0 GPUs": (lambda world: setattr(world, "devices", 0), "it finds no GPU"),
    "half updated": (
        lambda world: world.fail.update(cudaGetDeviceCount="cudaErrorSystemDriverMismatch"),
        "cudaErrorSystemDriverMismatch.*restart the machine",
    ),
}


@pytest.mark.parametrize("what", DRIVERS)
def test_a_driver_that_does_not_do_is_an_error_with_the_remedy(
    gpu: Any, model: bytes, options: Options, what: str
) -> None:
    spoil, message = DRIVERS[what]
    spoil(gpu.world)
    for call in (lambda: runtime.probe("tensorrt"), lambda: load("tensorrt", model, options())):
        with pytest.raises(BackendUnavailableError, match=message):
            call()


def test_no_driver_library_is_an_error_with_the_remedy(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DRIVER", "libcuda-that-is-not-there.so.1")
    with pytest.raises(BackendUnavailableError, match=r"libcuda-that-is-not-there.*install the dr"):
        runtime.probe("tensorrt-rtx")


def test_a_library_that_does_not_start_says_what_it_logs(
    gpu: Any, model: bytes, options: Options
) -> None:
    gpu.tensorrt.state.start_error = "CUDA initialization failure with error: 35"
    with pytest.raises(BackendUnavailableError, match=r"tensorrt 10\.9\.0 to start.*: 35; upd"):
        load("tensorrt", model, options())


def test_cuda_python_is_found_in_its_old_layout(
    gpu: Any, model: bytes, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "cuda"
    old.mkdir()
    for name, new in (("cudart", "runtime"), ("cuda", "driver"), ("nvrtc", "nvrtc")):
        (old / f"{name}.py").write_text(f"from cuda.bindings.{new} import *")
    fakes = Path(gpu.runtime.__file__).parents[1]
    importlib.import_module("cuda").__path__ = [str(old), str(fakes)]
    assert room.load_cuda("pip").runtime is gpu.runtime
    (old / "nvrtc.py").write_text("")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
        assert room.load_cuda("pip").runtime.__name__ == "cuda.cudart"


def test_no_cuda_python_is_an_error_that_names_the_install_command(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cuda", None)
        patch.setitem(sys.modules, "cuda.bindings.runtime", None)
        with pytest.raises(MissingDependencyError, match=r"cuda-python.*pip install 'edgeface\[t"):
            runtime.probe("tensorrt")


def test_profiles_cover_what_a_detector_sends(options: Options) -> None:
    whole = first_profile(options(long_side=640))
    assert whole == Profile((1, 32, 32, 3), (1, 480, 640, 3), (1, 640, 640, 3))
    assert whole.takes((1, 480, 640, 3)) and whole.takes((1, 640, 32, 3))
    assert not whole.takes((1, 480, 672, 3)) and not whole.takes((2, 480, 640, 3))
    assert first_profile(options()) == whole
    fixed = options(input_size=(640, 480))
    assert first_profile(fixed).is_static
    assert str(first_profile(fixed)) == "1x640x480"
    assert profile_for((5, 480, 640, 3), fixed).smallest == (1, 480, 640, 3)
    assert profile_for((5, 480, 640, 3), fixed).largest == (8, 480, 640, 3)
    coarse = first_profile(options(long_side=500, stride=128))
    assert coarse == Profile((1, 128, 128, 3), (1, 512, 640, 3), (1, 640, 640, 3))


@pytest.mark.parametrize(
    ("shape", "largest"),
    [
        ((1, 720, 1280, 3), (1, 1280, 1280, 3)),
        ((9, 1088, 1920, 3), (32, 1920, 1920, 3)),
        ((1, 2176, 3840, 3), (1, 3840, 3840, 3)),
        ((40, 64, 8000, 3), (40, 8000, 8000, 3)),
    ],
)
def test_larger_frames_get_a_profile_of_their_own(
    options: Options, shape: tuple[int, ...], largest: tuple[int, ...]
) -> None:
    profile = profile_for(shape, options())
    assert profile.takes(shape)
    assert profile.largest == largest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_grows_and_leaves_a_terminal_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(99)).__next__
    monkeypatch.setattr("edgeface.runtimes.nvidia.progress.time.monotonic", clock)
    screen = Terminal()
    progress = Progress("an engine", screen)
    shares = []
    progress.begin("Building", 2)
    for step in range(2):
        progress.begin("Timing", 4)
        for part in range(4):
            progress.advance("Timing", part + 1)
            shares.append(progress.fraction)
        progress.end("Timing")
        progress.advance("Building", step + 1)
        shares.append(progress.fraction)
    progress.end("Building")
    progress.close()
    assert shares == sorted(shares)
    assert shares[4] == 0.5
    assert "edgeface builds an engine: 50%" in screen.getvalue()
    assert screen.getvalue().endswith("\r\033[K")


def test_progress_in_a_log_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 5.0, 12.0, 13.0])
    monkeypatch.setattr("edgeface.runtimes.nvidia.progress.time.monotonic", times.__next__)
    log = io.StringIO()
    progress = Progress("an engine", log)
    progress.begin("Building", 4)
    for step in range(3):
        progress.advance("Building", step + 1)
    progress.close()
    assert log.getvalue() == "edgeface builds an engine: 50%\n"
