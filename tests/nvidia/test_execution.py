"""Running frames on a fake of the TensorRT API: order, names, shapes, memory, graphs, errors."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.errors import BackendUnavailableError, InferenceError, InvalidImageError
from edgeface.runtimes.base import DeviceRuntime, Outputs, RuntimeOptions, load

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
FLAVOURS = ("tensorrt", "tensorrt-rtx")
Noise = Callable[..., NDArray[np.uint8]]
Options = Callable[..., RuntimeOptions]


@pytest.fixture(scope="module")
def right(model: bytes) -> Callable[[Outputs, NDArray[np.uint8]], None]:
    """Asserts that outputs are those of ONNX Runtime, which computes for the fake as well."""
    cpu = load("onnxruntime", model, RuntimeOptions(None, (), True, 1, "tiny"))

    def check(outputs: Outputs, frames: NDArray[np.uint8]) -> None:
        wanted = cpu.infer(frames)
        assert set(outputs) == set(wanted)
        for name, value in wanted.items():
            assert outputs[name].dtype == np.float32
            np.testing.assert_array_equal(outputs[name], value, err_msg=name)

    return check


Right = Callable[[Outputs, NDArray[np.uint8]], None]


@pytest.mark.parametrize("name", FLAVOURS)
@pytest.mark.parametrize("fixed", [None, (96, 64)], ids=["any size", "one size"])
def test_frames_of_any_size_and_number_are_right(
    gpu: Any, model: bytes, options: Options, noise: Noise, right: Right, name: str, fixed: Any
) -> None:
    runtime = load(name, model, options(input_size=fixed))
    assert isinstance(runtime, DeviceRuntime)
    for height, width, count in ((64, 96, 1), (64, 96, 1), (96, 64, 1), (64, 96, 3), (32, 672, 1)):
        for seed in range(3):
            frames = noise(height, width, count, seed)
            right(runtime.infer(frames), frames)


@pytest.mark.parametrize("name", FLAVOURS)
def test_everything_is_freed(
    gpu: Any, model: bytes, options: Options, noise: Noise, right: Right, name: str
) -> None:
    runtime = load(name, model, options())
    frames = noise(64, 64)
    outputs = [runtime.infer(frames) for _ in range(4)][-1]
    assert gpu.world.device and gpu.world.host
    runtime.close()
    runtime.close()
    right(outputs, frames)
    del runtime, outputs
    gc.collect()
    assert not gpu.world.device
    assert not gpu.world.host
    assert not gpu.world.objects
    assert list(gpu.world.streams) == [1]
    assert gpu.tensorrt.state.orphans == 0


def test_a_shape_runs_once_before_its_graph_is_captured(
    gpu: Any, model: bytes, options: Options, noise: Noise, right: Right
) -> None:
    runtime = load("tensorrt", model, options())
    calls: list[list[str]] = []
    for turn, width in enumerate((64, 64, 64, 96, 96, 64)):
        gpu.world.calls.clear()
        frames = noise(64, width, seed=turn)
        right(runtime.infer(frames), frames)
        calls.append(list(gpu.world.calls))
    captures = [each.count("cudaStreamBeginCapture") for each in calls]
    launches = [each.count("cudaGraphLaunch") for each in calls]
    assert captures == [0, 1, 0, 0, 1, 0]
    assert launches == [0, 1, 1, 0, 1, 0]
    copy, wait = "cudaMemcpyAsync", "cudaStreamSynchronize"
    assert calls[2] == [copy, "cudaGraphLaunch", copy, wait], "one copy in, one copy out"


def test_steady_frames_allocate_nothing(
    gpu: Any, model: bytes, options: Options, noise: Noise
) -> None:
    runtime = load("tensorrt", model, options())
    kept = runtime.infer(noise(96, 96))
    runtime.infer(noise(96, 96))
    gpu.world.calls.clear()
    for height, width in ((64, 64), (96, 32), (96, 96), (96, 96)):
        kept = runtime.infer(noise(height, width))
    assert len(kept) == 9
    assert not {"cudaMalloc", "cudaHostAlloc"} & set(gpu.world.calls)


@pytest.mark.parametrize("failing", ["cudaStreamEndCapture", "cudaGraphInstantiate", "engine"])
def test_a_capture_that_fails_leaves_a_runtime_without_graphs(
    gpu: Any,
    model: bytes,
    options: Options,
    noise: Noise,
    right: Right,
    failing: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = load("tensorrt", model, options())
    runtime.infer(noise(64, 64))
    begin = gpu.runtime.cudaStreamBeginCapture

    def begin_and_fail(*arguments: Any) -> Any:
        gpu.world.fail[failing] = "cudaErrorStreamCaptureUnsupported"
        gpu.tensorrt.state.cannot_be_captured = failing == "engine"
        return begin(*arguments)

    forget = gpu.runtime.cudaGetLastError

    def get_and_mend() -> Any:
        gpu.world.fail.clear()
        return forget()

    monkeypatch.setattr(gpu.runtime, "cudaStreamBeginCapture", begin_and_fail)
    monkeypatch.setattr(gpu.runtime, "cudaGetLastError", get_and_mend)
    for seed in range(3):
        frames = noise(64, 64, seed=seed)
        right(runtime.infer(frames), frames)
    assert gpu.world.calls.count("cudaStreamBeginCapture") == 1
    assert "cudaGraphLaunch" not in gpu.world.calls


def test_rtx_captures_by_itself(gpu: Any, model: bytes, options: Options, noise: Noise) -> None:
    runtime = load("tensorrt-rtx", model, options())
    for _ in range(3):
        runtime.infer(noise(64, 64))
    assert "cudaStreamBeginCapture" not in gpu.world.calls


def test_rtx_keeps_its_compiled_kernels(
    gpu: Any, model: bytes, options: Options, noise: Noise
) -> None:
    load("tensorrt-rtx", model, options()).infer(noise(64, 64))
    assert gpu.tensorrt_rtx.saved == []
    load("tensorrt-rtx", model, options()).infer(noise(64, 64))
    assert gpu.tensorrt_rtx.saved == [b"kernels"]


def test_outputs_stay_as_long_as_they_are_looked_at(
    gpu: Any, model: bytes, options: Options, noise: Noise, right: Right
) -> None:
    runtime = load("tensorrt", model, options())
    frames = [noise(64, 64, seed=seed) for seed in range(4)]
    every = [runtime.infer(one) for one in frames]
    for outputs, one in zip(every, frames, strict=True):
        right(outputs, one)
    held = len(gpu.world.host)
    del outputs, every
    again = [runtime.infer(one) for one in frames]
    assert len(gpu.world.host) == held, "their memory is used again"
    right(again[-1], frames[-1])


def test_threads_share_a_runtime_and_keep_their_outputs(
    gpu: Any, model: bytes, options: Options, noise: Noise, right: Right
) -> None:
    runtime = load("tensorrt", model, options())
    barrier = threading.Barrier(3)

    def work(seed: int) -> None:
        for turn in range(4):
            frames = noise(32, 32 * (1 + turn % 2), seed=seed)
            barrier.wait(timeout=30)
            outputs = runtime.infer(frames)
            barrier.wait(timeout=30)
            right(outputs, frames)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert len(gpu.tensorrt.state.builds) == 1


def test_frames_are_only_read(
    gpu: Any, model: bytes, options: Options, noise: Noise, right: Right
) -> None:
    frames = noise(64, 64)
    frames.setflags(write=False)
    runtime = load("tensorrt", model, options())
    right(runtime.infer(frames), frames)


@pytest.mark.parametrize("frames", [np.zeros((32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3))])
def test_bad_frames_are_refused(gpu: Any, model: bytes, options: Options, frames: Any) -> None:
    with pytest.raises(InvalidImageError, match="expected contiguous uint8"):
        load("tensorrt", model, options()).infer(frames)


@pytest.mark.parametrize("name", FLAVOURS)
def test_a_native_failure_is_an_error_and_the_runtime_goes_on(
    gpu: Any, model: bytes, options: Options, noise: Noise, right: Right, name: str
) -> None:
    runtime = load(name, model, options())
    frames = noise(64, 64)
    right(runtime.infer(frames), frames)
    with pytest.raises(InferenceError, match=r"shape \(1, 40, 40, 3\).*refuses the shape.*pad"):
        runtime.infer(noise(40, 40))
    right(runtime.infer(frames), frames)
    gpu.world.fail["cudaStreamSynchronize"] = "cudaErrorIllegalAddress"
    with pytest.raises(InferenceError, match=r"cudaErrorIllegalAddress.*restart the program"):
        runtime.infer(frames)
    gpu.world.fail.clear()
    right(runtime.infer(frames), frames)


def test_memory_that_runs_out_on_a_frame_is_an_error_with_the_remedy(
    gpu: Any, model: bytes, options: Options, noise: Noise, right: Right
) -> None:
    runtime = load("tensorrt", model, options())
    gpu.world.fail["cudaMalloc"] = "cudaErrorMemoryAllocation"
    with pytest.raises(InferenceError, match=r"cudaErrorMemoryAllocation.*smaller frames"):
        runtime.infer(noise(64, 64))
    gpu.world.fail.clear()
    frames = noise(64, 64)
    right(runtime.infer(frames), frames)


def test_an_engine_for_larger_frames_that_does_not_build_is_an_error_of_that_frame(
    gpu: Any, model: bytes, options: Options, noise: Noise, right: Right
) -> None:
    """An InferenceError, which lets "auto" go on with the next backend."""
    runtime = load("tensorrt", model, options())
    gpu.tensorrt.state.build_error = "OutOfMemory"
    with pytest.raises(
        InferenceError, match=r"\(1, 64, 1024, 3\), but: .*memory ran out: OutOfMem"
    ):
        runtime.infer(noise(64, 1024))
    frames = noise(64, 64)
    right(runtime.infer(frames), frames)


@pytest.mark.parametrize("name", FLAVOURS)
def test_a_strange_failure_at_the_start_is_typed(
    gpu: Any, model: bytes, options: Options, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise TypeError("incompatible function arguments")

    monkeypatch.setattr(gpu.tensorrt.ICudaEngine, "create_execution_context", refuse)
    with pytest.raises(BackendUnavailableError, match=rf"{name} to start .*arguments; upgrade"):
        load(name, model, options())


def test_memory_that_runs_out_at_the_start_is_an_error_with_the_remedy(
    gpu: Any, model: bytes, options: Options
) -> None:
    gpu.tensorrt.state.no_memory_for_contexts = True
    with pytest.raises(BackendUnavailableError, match=r"could not be alloc.*smaller input_size"):
        load("tensorrt", model, options())


@pytest.mark.parametrize("name", FLAVOURS)
def test_a_closed_runtime_says_so(
    gpu: Any, model: bytes, options: Options, noise: Noise, name: str
) -> None:
    runtime = load(name, model, options())
    runtime.infer(noise(64, 64))
    runtime.close()
    with pytest.raises(InferenceError, match="got a closed one"):
        runtime.infer(noise(64, 64))


def test_describe_tells_what_runs(gpu: Any, model: bytes, options: Options, noise: Noise) -> None:
    runtime = load("tensorrt", model, options(exact=False))
    runtime.infer(noise(64, 800))
    facts = runtime.describe()
    assert facts["version"] == "10.9.0"
    assert facts["device"] == "Fake GPU (SM 8.9)"
    assert facts["precision"] == "as stored, fp32 as TF32"
    assert "1x32x32 to 1x640x640 built in" in facts["engines"]
    assert "1x32x32 to 1x1280x1280 built in" in facts["engines"]
