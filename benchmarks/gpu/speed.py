"""Latency, throughput and memory of both backbones on a GPU, as a Markdown table.

    python benchmarks/gpu/speed.py [--models DIR ...] > speed.md
    python benchmarks/gpu/speed.py --dry-run

A call is ``Runtime.infer``: frames from the host's memory to outputs in it, copies included. "On
the device" is one picture that lies in the GPU's memory already. The dry run takes the same way on
ONNX Runtime's CPU provider, in a minute; its figures say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from roofline import Chip, least_milliseconds, read_chip

from edgeface.bundle import Artifact, Bundle, load_bundle
from edgeface.devicepicture import device_picture
from edgeface.errors import EdgeFaceError
from edgeface.hardware import host
from edgeface.runtimes.base import BACKENDS, DeviceRuntime, Runtime, RuntimeOptions, load
from edgeface.runtimes.nvidia.cuda import Cuda, load_cuda

SIZES = {"VGA": (640, 480), "HD": (1920, 1088), "4K": (4096, 2176)}
BATCHES = (1, 8, 32)
ROUNDS, SECONDS, WARM_UP = 200, 3.0, 10
NVIDIA = ("tensorrt", "tensorrt-rtx", "onnxruntime")
PRECISIONS = ("fp32", "fp16", "int8")
PAPER = (
    "RetinaFace-MobileNet-0.25, TVM on a Tesla P40 (paper, table 5): VGA 1.4, HD 6.1, 4K 25.6 ms"
)
HEAD = (
    "| model | backend | precision | frames | batch | ms | p90 ms | pictures/s | on the device ms "
    "| memory MB | roofline ms |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


class Case(NamedTuple):
    """What one runtime is made of."""

    bundle: Bundle
    backend: str
    artifact: Artifact
    label: str


def cases(models: list[str], backends: tuple[str, ...], labels: list[str]) -> Iterator[Case]:
    """Every model on every backend in every precision that it has, at every size."""
    for bundle in map(load_bundle, models):
        for backend in backends:
            for precision in PRECISIONS:
                artifact = BACKENDS[backend].artifact(bundle, (precision,))
                if artifact:
                    yield from (Case(bundle, backend, artifact, label) for label in labels)


def rows(case: Case, batches: tuple[int, ...], rounds: int, cuda: Cuda | None) -> Iterator[str]:
    """One table row per batch; a row says what failed where one does."""
    width, height = SIZES[case.label]
    head = [case.bundle.name, case.backend, case.artifact.precision, case.label]
    options = RuntimeOptions(
        input_size=(width, height),
        input_sizes=case.artifact.input_sizes,
        exact=False,
        threads=host().threads,
        cache_key=f"{case.bundle.name}-{case.artifact.sha256}",
        stride=case.bundle.anchors.max_stride,
    )
    before = memory(cuda)
    data = case.bundle.open(case.artifact)
    try:
        runtime = load(case.backend, data, options)
    except EdgeFaceError as error:
        yield row(*head, "–", f"{type(error).__name__}: {error}")
        return
    chip = read_chip(cuda) if cuda else None
    for batch in batches:
        shape = (batch, height, width, 3)
        frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        try:
            times, outputs = measure(lambda frames=frames: runtime.infer(frames), rounds)
        except EdgeFaceError as error:
            yield row(*head, batch, f"{type(error).__name__}: {error}")
            continue
        middle = statistics.median(times)
        moved = len(data) + frames.nbytes + sum(value.nbytes for value in outputs.values())
        yield row(
            *(*head, batch, f"{middle:.2f}", f"{np.percentile(times, 90):.2f}"),
            f"{1e3 * batch / middle:.0f}",
            on_the_device(runtime, frames, rounds, cuda) if batch == 1 else "–",
            f"{(memory(cuda) - before) / 2**20:.0f}",
            bound(chip, case, batch * width * height, moved),
        )
    runtime.close()


def measure(call: Callable[[], Any], rounds: int) -> tuple[list[float], Any]:
    """Milliseconds of each call after a warm-up, and what the last one returned."""
    for _ in range(min(WARM_UP, rounds)):
        result = call()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < rounds and (not times or time.perf_counter() < end):
        began = time.perf_counter()
        result = call()
        times.append((time.perf_counter() - began) * 1e3)
    return times, result


def on_the_device(runtime: Runtime, frames: Any, rounds: int, cuda: Cuda | None) -> str:
    """Median for a picture that is copied to the GPU once, before."""
    if cuda is None or not isinstance(runtime, DeviceRuntime):
        return "–"
    _, height, width, _ = frames.shape
    target = cuda.allocate(frames.nbytes)
    to_device = cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
    cuda.call("cudaMemcpy", target.value, frames.ctypes.data, frames.nbytes, to_device)
    picture = device_picture(OnDevice(target, height, width))
    size = (width, height)
    times, _ = measure(lambda: runtime.infer_picture(picture, size, size, (0, 0, 0)), rounds)
    return f"{statistics.median(times):.2f}"


class OnDevice:
    """Memory on the GPU as other libraries would pass it."""

    def __init__(self, memory: Any, height: int, width: int) -> None:
        self._memory = memory
        self.__cuda_array_interface__ = {
            "data": (int(memory), False),
            "shape": (height, width, 3),
            "strides": None,
            "stream": None,
            "typestr": "|u1",
            "version": 3,
        }


def memory(cuda: Cuda | None) -> int:
    """Bytes in use: of the GPU, or of this process where there is none."""
    if cuda is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    free, total = cuda.call("cudaMemGetInfo")
    return int(total - free)


def bound(chip: Chip | None, case: Case, pixels: int, moved: int) -> str:
    """The roofline's bound as a cell."""
    if chip is None:
        return "–"
    preset, precision = case.bundle.preset, case.artifact.precision
    least = least_milliseconds(chip, preset, precision, pixels, moved)
    return "–" if least is None else f"{least:.2f}"


def row(*cells: object) -> str:
    """A table row, filled up where a failure ends it early."""
    texts = [" ".join(str(cell).split()).replace("|", "/") for cell in cells]
    return f"| {' | '.join(texts + ['–'] * (11 - len(texts)))} |"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Latency, throughput and memory on a GPU.")
    parser.add_argument(
        "--models", nargs="+", default=["retinaface_mobilenet025"], help="names or bundle folders"
    )
    parser.add_argument("--backends", nargs="+", choices=NVIDIA, default=NVIDIA)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed calls of each")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, a few small calls")
    args = parser.parse_args()
    if args.dry_run:
        print("DRY RUN on the CPU: no figure below is a GPU's.\n")
        cuda, backends, labels, batches, rounds = None, ("onnxruntime",), ["VGA"], (1, 2), 2
    else:
        cuda = load_cuda("pip install cuda-python")
        backends, labels, batches = tuple(args.backends), list(SIZES), BATCHES
        rounds = args.rounds
        print(f"{read_chip(cuda)}\n")
    print(f"{PAPER}\n\n{HEAD}")
    for case in cases(args.models, backends, labels):
        for line in rows(case, batches, rounds, cuda):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
