"""Batches, callers and detectors: what gives more frames a second, as Markdown tables.

    python benchmarks/throughput.py [--backends openvino ...] [--rounds 20] > table.md

What is compared runs in turns, so that other work on the machine falls on all of it. Times by the
CPU's clock are of all threads of this process, and are disturbed less.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.bench.scenes import fit, load_picture
from edgeface.bench.timing import Ratio, Turn, interleave
from edgeface.bundle import load_bundle
from edgeface.hardware import host
from edgeface.startup import start

SIZE = (640, 480)
BATCHES = (1, 2, 4, 8, 16)
FRAMES = 16
BACKENDS = ("openvino", "onnxruntime", "tflite")
PRECISIONS = ("int8", "fp32")

Calls = Mapping[str, Callable[[], object]]


def turns_of(calls: Calls, rounds: int) -> dict[str, list[Turn]]:
    """Time calls that take turns."""
    taken: dict[str, list[Turn]] = {name: [] for name in calls}
    for turns in interleave(calls, rounds, warm_up=2):
        for name, turn in turns.items():
            taken[name].append(turn)
    return taken


def batch_row(
    model: str, backend: str, precision: str, threads: int, image: NDArray[np.uint8], rounds: int
) -> str:
    """A row of the table of batches: the network alone, each time on as many frames in all."""
    exact = "auto" if precision == "int8" else precision
    bundle = load_bundle(model)
    frames = {batch: np.repeat(image[None], batch, 0) for batch in BATCHES}
    # One each, for OpenVINO makes static graphs of its first few shapes only.
    runtimes = {batch: start(bundle, backend, exact, SIZE, threads).runtime for batch in BATCHES}

    def infer(batch: int) -> None:
        for _ in range(FRAMES // batch):
            runtimes[batch].infer(frames[batch])

    calls = {str(batch): partial(infer, batch) for batch in BATCHES}
    taken = turns_of(calls, rounds)
    for runtime in runtimes.values():
        runtime.close()
    alone = taken["1"]
    cells = [f"{np.median([turn.wall for turn in alone]) / FRAMES:.1f}"]
    for batch in BATCHES[1:]:
        ratio = Ratio.paired(taken[str(batch)], alone)
        cells.append(f"{ratio.median:.2f} / {ratio.cpu:.2f}")
    return "| " + " | ".join([backend, precision, str(threads), *cells]) + " |"


def look(detectors: Sequence[Detector], callers: int, image: NDArray[np.uint8]) -> None:
    """Look at as many pictures in all, the detectors in turn."""
    jobs = islice(cycle(detectors), FRAMES)
    if callers == 1:
        for detector in jobs:
            detector(image)
        return
    with ThreadPoolExecutor(callers) as pool:
        for _ in pool.map(lambda detector: detector(image), jobs):
            pass


def caller_rows(
    model: str, backend: str, precision: str, threads: int, image: NDArray[np.uint8], rounds: int
) -> list[str]:
    """Rows of the table of callers: pictures to faces."""
    exact = "auto" if precision == "int8" else precision
    with ExitStack() as opened:

        def make(
            count: int = 1, threads: int | None = threads, mode: str = "latency"
        ) -> list[Detector]:
            return [
                opened.enter_context(
                    Detector(backend, model=model, precision=exact, threads=threads, mode=mode)
                )
                for _ in range(count)
            ]

        [single], [latency] = make(threads=1), make()
        [throughput] = make(mode="throughput")
        ones, defaults = make(4, 1), make(4, None)
        pictures = [image] * FRAMES
        calls: Calls = {
            "mode latency, 1 caller": partial(look, [latency], 1, image),
            "one thread, 1 caller": partial(look, [single], 1, image),
            f"mode latency, {threads} callers": partial(look, [latency], threads, image),
            f"mode throughput, {threads} callers": partial(look, [throughput], threads, image),
            f"mode throughput, {2 * threads} callers": partial(
                look, [throughput], 2 * threads, image
            ),
            f"mode latency, a list of {FRAMES}": lambda: latency(pictures),
            f"mode throughput, a list of {FRAMES}": lambda: throughput(pictures),
            "4 detectors of one thread, 4 callers": partial(look, ones, 4, image),
            "4 detectors with the default threads, 4 callers": partial(look, defaults, 4, image),
        }
        taken = turns_of(calls, rounds)
    base = taken["mode latency, 1 caller"]
    rows = []
    for name, turns in taken.items():
        fps = 1e3 * FRAMES / float(np.median([turn.wall for turn in turns]))
        cpu = float(np.median([turn.cpu for turn in turns])) / FRAMES
        more = Ratio.paired(base, turns)
        rows.append(f"| {backend} {precision} | {name} | {fps:.0f} | {more} | {cpu:.1f} |")
    return rows


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Batches, callers and detectors, as tables.")
    parser.add_argument("--model", default="retinaface_mobilenet025", help="name or bundle folder")
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=host().big_cores, help="of the larger rows")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--image", type=Path, help="a picture (default: scikit-image's astronaut)")
    parser.add_argument("--only", choices=("batches", "callers"))
    args = parser.parse_args()
    picture, named = load_picture(args.image)
    image = fit(picture, SIZE)
    cv2.setNumThreads(1)
    kinds = [(backend, precision) for backend in args.backends for precision in args.precisions]
    print(
        f"{host().cpu}, {host().cores} cores, Python {platform.python_version()}, {named} at "
        f"{SIZE[0]}x{SIZE[1]}, {args.rounds} rounds of {FRAMES} frames.\n"
    )
    if args.only != "callers":
        together = " | ".join(f"{batch}" for batch in BATCHES[1:])
        print("Time of a frame, of one alone in ms, then beside that (clock / CPU):\n")
        print(f"| backend | precision | threads | 1 frame, ms | {together} |")
        print("|---" * (3 + len(BATCHES)) + "|")
        for backend, precision in kinds:
            for threads in sorted({1, args.threads}):
                shared = args.model, backend, precision, threads, image, args.rounds
                print(batch_row(*shared), flush=True)
        print()
    if args.only != "batches":
        print(f"Pictures to faces, {args.threads} threads where nothing else is said:\n")
        print("| backend | who calls | frames/s | of mode latency, 1 caller | CPU ms a frame |")
        print("|---|---|---|---|---|")
        for backend, precision in kinds:
            shared = args.model, backend, precision, args.threads, image, args.rounds
            print("\n".join(caller_rows(*shared)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
