"""``Detector`` on a fake NVIDIA machine, whole: faces, pictures on the GPU, and the way on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces, startup
from edgeface.errors import BackendUnavailableError, InvalidImageError
from edgeface.hardware import host
from edgeface.runtimes import probe
from edgeface.runtimes.base import BACKENDS

Kernel = Callable[..., None]


class OnDevice:
    """A picture in the fake GPU's memory, which a stream still writes there."""

    def __init__(self, gpu: Any, picture: NDArray[np.uint8]) -> None:
        error, self.address = gpu.runtime.cudaMalloc(picture.nbytes)
        assert not error
        memory = gpu.runtime.bytes_at(self.address, picture.nbytes)
        gpu.world.streams[1].put(lambda: np.copyto(memory.reshape(picture.shape), picture))
        self.__cuda_array_interface__ = {
            "shape": picture.shape,
            "typestr": "|u1",
            "data": (self.address, False),
            "strides": None,
            "stream": 1,
            "version": 3,
        }


@pytest.fixture(scope="module")
def on_cpu(astronaut: NDArray[np.uint8]) -> Faces:
    with Detector("onnxruntime", precision="fp32") as detector:
        return detector(astronaut)


@pytest.fixture
def known(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An NVIDIA machine where every backend but OpenVINO has probed well."""
    machine = replace(host(), nvidia=True)
    monkeypatch.setattr(startup, "host", lambda: machine)
    found = {name: probe.Verdict(name, True, "1", "") for name in BACKENDS}
    found["openvino"] = replace(found["openvino"], available=False, version=None)
    monkeypatch.setattr(startup, "probe", lambda name, refresh=False: found[name])


def assert_same(faces: Faces, wanted: Faces) -> None:
    assert len(faces) == len(wanted) >= 1
    np.testing.assert_array_equal(faces.boxes, wanted.boxes)
    np.testing.assert_array_equal(faces.scores, wanted.scores)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_the_astronaut(astronaut: NDArray[np.uint8], on_cpu: Faces, backend: str) -> None:
    with Detector(backend, precision="fp32") as detector:
        for _ in range(3):
            assert_same(detector(astronaut), on_cpu)
        assert "Fake GPU" in str(detector.explain())


@pytest.mark.usefixtures("known")
def test_a_picture_on_the_gpu_stays_there(
    gpu: Any, kernel: Kernel, astronaut: NDArray[np.uint8], on_cpu: Faces
) -> None:
    gpu.driver.kernel = kernel
    with Detector("tensorrt", precision="fp32") as detector:
        for _ in range(3):
            picture = OnDevice(gpu, astronaut)
            gpu.world.calls.clear()
            assert_same(detector(picture), on_cpu)
            assert "cudaStreamWaitEvent" in gpu.world.calls
            copies = gpu.world.calls.count("cudaMemcpyAsync")
            assert copies == 1, "outputs only: the picture is never copied"
        assert_same(detector(OnDevice(gpu, astronaut[..., ::-1].copy()), "rgb"), on_cpu)
        assert detector(astronaut).boxes.tolist() == on_cpu.boxes.tolist()
        settled = OnDevice(gpu, astronaut)
        gpu.world.streams[1].run()
        settled.__cuda_array_interface__["stream"] = None
        with ThreadPoolExecutor(1) as pool:
            assert_same(pool.submit(detector, settled).result(), on_cpu)


@pytest.mark.usefixtures("known")
def test_a_region_and_tiles_of_a_picture_on_the_gpu(
    gpu: Any, kernel: Kernel, astronaut: NDArray[np.uint8]
) -> None:
    gpu.driver.kernel = kernel
    options: dict[str, Any] = {"roi": (100, 0, 300, 300), "tile": True, "input_size": 192}
    with Detector("onnxruntime", precision="fp32", **options) as cpu:
        wanted = cpu(astronaut)
    with Detector("tensorrt", precision="fp32", **options) as detector:
        assert_same(detector(OnDevice(gpu, astronaut)), wanted)


def test_other_backends_refuse_pictures_on_the_gpu(gpu: Any) -> None:
    picture = OnDevice(gpu, np.zeros((64, 64, 3), np.uint8))
    with (
        Detector("onnxruntime") as detector,
        pytest.raises(InvalidImageError, match=r"'onnxruntime', got one .* GPU; copy it .*'tens"),
    ):
        detector(picture)


def test_streams_take_no_pictures_on_the_gpu(gpu: Any) -> None:
    picture = OnDevice(gpu, np.zeros((64, 64, 3), np.uint8))
    with (
        Detector("onnxruntime") as detector,
        detector.stream([picture], "every") as stream,
        pytest.raises(
            InvalidImageError, match=r"in the memory of the CPU, got one .*call Detector"
        ),
    ):
        next(stream)


@pytest.mark.usefixtures("known")
def test_auto_goes_from_one_library_to_the_next(gpu: Any) -> None:
    with Detector() as detector:
        assert detector.explain().backend == "tensorrt"
    gpu.tensorrt.state.builds.clear()
    gpu.tensorrt.Builder = refuse("no such GPU")
    with pytest.warns(UserWarning, match="'tensorrt-rtx', because tensorrt: .*no such GPU"):
        detector = Detector(input_size=1000)
    with detector:
        assert detector.explain().backend == "tensorrt-rtx"
    gpu.tensorrt_rtx.Builder = refuse("no such GPU either")
    with pytest.warns(UserWarning, match=r"tensorrt-rtx: .*no such GPU either"):
        detector = Detector(input_size=1500)
    with detector:
        assert detector.explain().backend in ("onnxruntime", "tflite")
    with pytest.raises(BackendUnavailableError, match="no such GPU"):
        Detector("tensorrt", input_size=1500)


def refuse(reason: str) -> Callable[..., None]:
    def fail(logger: Any) -> None:
        raise TypeError(reason)

    return fail


@pytest.fixture
def driver_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A ``libcuda.so.1`` for subprocesses: any library does, for the fake never calls it."""
    with Path("/proc/self/maps").open() as maps:
        libc = next(line.split()[-1] for line in maps if "libc.so" in line or "libc-2" in line)
    (tmp_path / "libcuda.so.1").symlink_to(libc)
    found = os.environ.get("LD_LIBRARY_PATH", "")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}{os.pathsep}{found}".rstrip(os.pathsep))
    monkeypatch.setattr(probe, "_verdicts", {})
    yield


@pytest.mark.usefixtures("gpu", "driver_library")
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_probing_runs_a_frame_in_a_process_of_its_own(backend: str) -> None:
    verdict = probe.probe(backend)
    assert verdict.available, verdict.reason
    assert verdict.device == "Fake GPU (SM 8.9)"


@pytest.mark.usefixtures("gpu", "driver_library")
def test_a_new_driver_is_probed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        monkeypatch.setenv("LD_LIBRARY_PATH", "")
        assert "NVIDIA driver" in probe.probe("tensorrt").reason
    asked: list[str] = []

    def ask(wanted: Any, *_: object) -> probe.Verdict:
        asked.append(wanted.name)
        return probe.Verdict(wanted.name, False, None, "")

    monkeypatch.setattr(probe, "_ask", ask)
    probe.probe("tensorrt")
    assert asked == []
    monkeypatch.setattr(probe, "nvidia_driver", lambda: "NVRM version: 580.65.06")
    probe.probe("tensorrt")
    assert asked == ["tensorrt"]
