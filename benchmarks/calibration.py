"""Calibration methods compared on accuracy, as a Markdown table.

    python benchmarks/calibration.py --data TRAIN --evaluate WIDER --evaluate LABELS > table.md

For every target: each method, per channel and per tensor, at one number of pictures; then the
target's default method at each number of pictures. Accuracy is that of the gate: average precision
as a share of fp32's, and landmark error relative to it. The noise is that of the outputs where
postprocessing reads them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeface.bundle import Bundle, load_bundle
from edgeface.calibration import nncf
from edgeface.calibration.accuracy import EvaluationData, load_evaluation_data
from edgeface.calibration.draw import draw
from edgeface.calibration.histogram import METHODS
from edgeface.calibration.publish import Judge
from edgeface.calibration.quantize import (
    DEFAULT_METHODS,
    TARGETS,
    QuantizationOptions,
    quantize,
)
from edgeface.calibration.sensitivity import relevant_snr
from edgeface.calibration.subset import CalibrationSet, Preprocess
from edgeface.calibration.trial import RUNNERS, Geometry, Trial
from edgeface.cli.progress import track
from edgeface.evaluation.wider import spread
from edgeface.imageio import read_image

NOISE_PICTURES = 16


@dataclass(frozen=True)
class Case:
    """One way to quantise for a target."""

    target: str
    images: int
    options: QuantizationOptions

    @property
    def method(self) -> str:
        """The method that runs."""
        return self.options.method or DEFAULT_METHODS[self.target]


def cases(targets: Sequence[str], images: Sequence[int], middle: int) -> Iterator[Case]:
    """Every method per channel and per tensor, then every number of pictures."""
    for target in targets:
        for method in METHODS if target in ("onnx", "tflite") else nncf.METHODS:
            for per_channel in (True, False):
                yield Case(target, middle, QuantizationOptions(method, per_channel))
        for count in images:
            if count != middle:
                yield Case(target, count, QuantizationOptions())


def noise(bundle: Bundle, case: Case, content: bytes, data: EvaluationData) -> dict[str, float]:
    """Signal to noise in dB of scores, boxes and landmarks against float32."""
    geometry = Geometry(bundle.anchors, bundle.pad_value)
    with (
        Trial(source(bundle, "onnx"), RUNNERS["onnx"], geometry) as reference,
        Trial(content, RUNNERS[case.target], geometry) as candidate,
    ):
        pictures = spread(data.pictures, NOISE_PICTURES)
        frames = [reference.place(read_image(one.path))[0] for one in pictures]
        results = [
            [{name: out.copy() for name, out in trial.infer(frame).items()} for frame in frames]
            for trial in (reference, candidate)
        ]
    return relevant_snr(*results)


def source(bundle: Bundle, target: str) -> bytes:
    """The float32 graph that a target is quantised from."""
    artifact = bundle.find("tflite" if target == "tflite" else "onnx", "fp32")
    if artifact is None:
        sys.exit(f"expected a bundle with fp32 graphs, got '{bundle.path}'")
    return bundle.open(artifact)


def rows(
    bundle: Bundle, calibration: CalibrationSet, data: EvaluationData, wanted: Sequence[Case]
) -> Iterator[str]:
    """Quantise and measure: the lines of the table."""
    judge = Judge(Geometry(bundle.anchors, bundle.pad_value), data)
    yield (
        "| target | method | weights | pictures | easy | medium | hard | landmark error "
        "| SNR dB scores / boxes / landmarks | seconds |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for case in track(wanted, "comparing", unit="case"):
        began = time.process_time()
        float32 = source(bundle, case.target)
        content = quantize(case.target, float32, calibration[: case.images], case.options)
        took = time.process_time() - began
        verdict = judge.verdict(case.target, float32, content)
        shares = " | ".join(f"{share:.2%}" for share in verdict.shares.values())
        decibels = noise(bundle, case, content, data)
        yield (
            f"| {case.target} | {case.method} "
            f"| {'per channel' if case.options.per_channel else 'per tensor'} | {case.images} "
            f"| {shares} | {verdict.landmark_ratio - 1:+.2%} "
            f"| {' / '.join(f'{value:.1f}' for value in decibels.values())} | {took:.0f} |"
        )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="retinaface_mobilenet025", help="name or bundle folder")
    parser.add_argument("--data", type=Path, required=True, help="pictures to calibrate with")
    parser.add_argument("--evaluate", type=Path, action="append", required=True)
    parser.add_argument("--limit", type=int, help="evaluate on N pictures of each")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--images", type=int, nargs="+", default=[50, 100, 300, 1000])
    parser.add_argument("--middle", type=int, default=300, help="pictures while methods compete")
    args = parser.parse_args()
    bundle = load_bundle(args.model)
    data = load_evaluation_data(args.evaluate)
    data = data if args.limit is None else data.limit(args.limit)
    preprocess = Preprocess(640, bundle.anchors.max_stride, bundle.pad_value)
    most = max(*args.images, args.middle)
    drawn = draw(args.data, preprocess, images=most, progress=lambda files: track(files, "reading"))
    wanted = list(cases(args.targets.split(","), args.images, args.middle))
    for row in rows(bundle, drawn.calibration, data, wanted):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
