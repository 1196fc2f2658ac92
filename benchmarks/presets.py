"""Cost and latency of every preset on three CPU backends at 640 x 480, as a Markdown table.

    python benchmarks/presets.py [--preset NAME …] [--models DIR] [--rounds 30] > table.md

Each preset is built with fresh weights, exported to ONNX and TFLite, and compared with PyTorch on
pictures that the export never saw (the least signal-to-noise ratio over all backends and outputs is
in the table). Then all backends look at one picture in turn, one thread each, float32. Whatever
else the machine does falls on all of them alike, so compare within a row. Where DIR has a bundle
NAME, as ``edgeface export`` writes it, that one is compared and measured; where not, one is put.

No score reaches the threshold, so the milliseconds hold preprocessing, the net and the search for
scores, but no decoding of faces.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from edgeface import Detector
from edgeface.bench.timing import Times, interleave
from edgeface.bundle import MANIFEST, load_bundle
from edgeface.converters.bundle import Conversion, write_bundle
from edgeface.converters.onnx import to_onnx
from edgeface.converters.parity import check_parity
from edgeface.converters.report import ParityReport
from edgeface.converters.tflite import to_tflite
from edgeface.hardware import host
from edgeface.nets import DetectorNet, build, presets
from edgeface.nets.cost import cost
from edgeface.nets.weights import load_bundle_net

WIDTH, HEIGHT = 640, 480
FORMATS = ("onnx", "tflite")
BACKENDS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "LiteRT"}
NOTHING = 1.0


def calibrate_norms(net: DetectorNet) -> DetectorNet:
    """Give batch norms the statistics of one noisy picture, so that no fresh net overflows."""
    rng = np.random.default_rng(0)
    picture = torch.from_numpy(rng.integers(0, 256, (2, 3, 256, 256)).astype(np.float32))
    with torch.no_grad():
        net.train()(picture)
    return net.eval()


def latencies(folder: Path, rounds: int) -> dict[str, float]:
    """Median milliseconds from picture to faces by backend, interleaved."""
    picture = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    detectors = {
        backend: Detector(
            backend, model=str(folder), precision="fp32", score_threshold=NOTHING, threads=1
        )
        for backend in BACKENDS
    }
    calls = {backend: partial(detector, picture) for backend, detector in detectors.items()}
    turns = list(interleave(calls, rounds))
    for detector in detectors.values():
        detector.close()
    return {backend: Times.of([turn[backend] for turn in turns]).p50 for backend in detectors}


def export(preset: str, folder: Path) -> None:
    """Write a bundle of a preset with fresh weights; how equal it is to torch is judged later."""
    torch.manual_seed(0)
    net = calibrate_norms(build(preset))
    contents = {("onnx", "fp32"): to_onnx(net), ("tflite", "fp32"): to_tflite(net)}
    write_bundle(preset, net, Conversion(contents, (), ParityReport((), {})), folder, {})


def row(preset: str, models: Path, rounds: int) -> str:
    """One row of the table."""
    folder = models / preset
    if not (folder / MANIFEST).is_file():
        export(preset, folder)
    bundle = load_bundle(folder)
    net = load_bundle_net(bundle)
    spent = cost(net, WIDTH, HEIGHT)
    cells = [net.preset, f"{spent.gmac:.2f}", f"{spent.parameters / 1e6:.2f} M"]
    found = [one for one in bundle.artifacts if one.precision == "fp32" and one.format in FORMATS]
    files = {one.format: bundle.open(one) for one in found}
    report = check_parity(net, files)
    worst = min(t.snr_db for backend in report.backends for t in backend.tensors)
    times = latencies(folder, rounds)
    cells += [f"{times[backend]:.1f}" for backend in BACKENDS]
    return "| " + " | ".join([*cells, f"{worst:.0f}"]) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", help="default: all")
    parser.add_argument("--models", type=Path, metavar="DIR", help="bundles to take, or to keep")
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each backend")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(f"{host().cpu}, Python {platform.python_version()}, one thread, float32.\n")
    heads = ["preset", "GMAC", "parameters", *(f"{name} ms" for name in BACKENDS.values())]
    print("| " + " | ".join([*heads, "least SNR to PyTorch, dB"]) + " |")
    print("|" + "---|" * (len(heads) + 1))
    with tempfile.TemporaryDirectory() as scratch:
        for preset in args.preset or presets():
            print(row(preset, args.models or Path(scratch), args.rounds), flush=True)


if __name__ == "__main__":
    main()
